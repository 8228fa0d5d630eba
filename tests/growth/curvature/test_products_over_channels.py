"""Splitting matrices of queries and keys, against their closed form and the Hessian of a network that is split."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.products_over_channels import products, written_attention
from nni_s3d.growth.graph.channels import ChannelGroup
from tests.wide import Net, sample

BATCH = (sample(6, 5, 4), torch.arange(6) % 3)
loss_fn = nn.CrossEntropyLoss()


def fused(m: nn.Module, x: Tensor) -> Tensor:
    return m.head(F.scaled_dot_product_attention(m.query(x), m.key(x), m.value(x)).mean(1))


def by_hand(m: nn.Module, x: Tensor) -> Tensor:
    scores = m.query(x) / 2 @ m.key(x).transpose(-2, -1)
    return m.head((scores.softmax(-1) @ m.value(x)).mean(1))


def by_einsum(m: nn.Module, x: Tensor) -> Tensor:
    scores = torch.einsum("bnd,bmd->bnm", torch.tanh(m.query(x)), m.key(x))
    return m.head(torch.einsum("bnm,bmd->bnd", scores.sigmoid(), m.value(x)).mean(1))


def behind_activations(m: nn.Module, x: Tensor) -> Tensor:
    """Behind another group, with a norm on the keys and an activation on the queries."""
    x = F.silu(m.first(x))
    return m.head(((F.silu(m.query(x)) @ m.norm(m.key(x).mT)).softmax(-1) @ torch.tanh(m.value(x))).mean(1))


WAYS = {"fused": fused, "by hand": by_hand, "by einsum": by_einsum, "behind activations": behind_activations}


def network(way: str) -> nn.Module:
    torch.manual_seed(0)
    layers = {name: nn.Linear(4, 3) for name in ("query", "key", "value")}
    model = Net(WAYS[way], **layers, first=nn.Linear(4, 4), norm=nn.BatchNorm1d(3), head=nn.Linear(3, 3)).double()
    for tensor in (*model.norm.parameters(), model.norm.running_mean, model.norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def loss_of_twins(model: nn.Module, group: ChannelGroup, delta: Tensor, carries: str, scale: float) -> Tensor:
    """Return the loss when each channel is two, theta +- delta, and what carries their weights is halved."""
    tensors, widths = dict(model.named_parameters()), delta.split([4, 4, 1, 1], dim=1)
    twins = {"query.weight": widths[0], "key.weight": widths[1], "query.bias": widths[2], "key.bias": widths[3]}
    signs = torch.tensor([1.0, -1.0]).repeat(group.width).double()
    for name, moves in twins.items():
        moves = (moves.repeat_interleave(2, 0) * signs[:, None]).reshape(-1, *tensors[name].shape[1:])
        tensors[name] = tensors[name].repeat_interleave(2, 0) + moves
    for name, buffer in (*model.norm.named_parameters(prefix="norm"), *model.norm.named_buffers(prefix="norm")):
        tensors[name] = buffer.repeat_interleave(2) if buffer.dim() else buffer
    for name in ("weight", "bias"):
        tensors[f"{carries}.{name}"] = tensors[f"{carries}.{name}"] / 2 * scale
    return loss_fn(functional_call(model, tensors, (BATCH[0],)), BATCH[1])


@pytest.mark.parametrize("way", WAYS)
def test_the_matrices_are_those_of_a_network_whose_neurons_are_split(way):
    model = network(way)
    graph = s3d.trace(model, BATCH[0])
    group = graph["query"]
    assert [layer.name for layer in group.producers] == ["query", "key"]
    carries, scale = "norm" if way == "behind activations" else "key", 2**0.5 if way == "fused" else 1.0
    start = torch.zeros(3, 10, dtype=torch.float64)
    torch.testing.assert_close(
        loss_of_twins(model, group, start, carries, scale), loss_fn(model(BATCH[0]), BATCH[1]), rtol=0, atol=1e-14
    )
    hessian = torch.autograd.functional.hessian(lambda d: loss_of_twins(model, group, d, carries, scale), start)
    expected = torch.einsum("iaib->iab", hessian)
    for kind in (s3d.SplittingOperator, s3d.PlainSplittingOperator):
        op = kind(model, graph, [BATCH], loss_fn)
        torch.testing.assert_close(op.dense("query"), expected, rtol=1e-9, atol=1e-14)
    assert expected.abs().max() > 1e-4


def test_they_have_two_blocks_beside_the_diagonal():
    """S = [[0, X' g X], [., 0]] where the scores are X q k' X' and g is the derivative of the loss by them."""
    model = network("by hand")
    op = s3d.SplittingOperator(model, s3d.trace(model, BATCH[0]), [BATCH], loss_fn)
    x, y = BATCH
    inputs = torch.cat([x, torch.ones_like(x[..., :1])], -1)  # with the biases
    scores = (model.query(x) / 2 @ model.key(x).mT).detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss_fn(model.head((scores.softmax(-1) @ model.value(x)).mean(1)), y), scores)
    block = torch.einsum("bni,bnm,bmj->ij", inputs, slope / 2, inputs)
    expected = torch.zeros(10, 10, dtype=torch.float64)
    queries, keys = [0, 1, 2, 3, 8], [4, 5, 6, 7, 9]
    expected[torch.tensor(queries)[:, None], torch.tensor(keys)] = block
    expected += expected.T.clone()
    torch.testing.assert_close(op.dense("query"), expected.expand(3, 10, 10), rtol=1e-9, atol=1e-14)
    eigenvalues = torch.linalg.eigvalsh(op.dense("query"))
    torch.testing.assert_close(eigenvalues, -eigenvalues.flip(1))
    assert (eigenvalues[:, 0] < 0).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("c", [1.0, 2.0])
def test_the_loss_changes_as_predicted(way, c):
    model = network(way)
    graph = s3d.trace(model, BATCH[0])
    spectrum = s3d.spectrum(s3d.SplittingOperator(model, graph, [BATCH], loss_fn), "exact")
    plan = s3d.plan_from_copies(graph, {"query": torch.tensor([2, 1, 3])}, spectrum, c=c)
    losses = [
        loss_fn(s3d.split(model, graph, plan, epsilon=step).model(BATCH[0]), BATCH[1]).item() for step in (0, 1e-3)
    ]
    assert losses[0] == pytest.approx(loss_fn(model(BATCH[0]), BATCH[1]).item(), abs=1e-14)
    assert losses[1] - losses[0] == pytest.approx(1e-6 / 2 * plan.gain, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()},
        {"attn_mask": sample(5, 5)},
        {"enable_gqa": True},
    ],
    ids=lambda options: ", ".join(options),
)
def test_it_is_the_attention_of_pytorch(options):
    query, key, value = sample(2, 4, 5, 3), sample(3, 4, 5, 3)[:2] + 1, sample(4, 4, 5, 3)[2:]
    if "enable_gqa" in options:
        key, value = key[:, ::2], value[:, ::2]
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(written_attention(products, query, key, value, **options), expected)


@pytest.mark.parametrize("kind", [s3d.SplittingOperator, s3d.PlainSplittingOperator])
def test_queries_and_keys_need_gradients(kind):
    def forward(m, x):
        with torch.no_grad():
            scores = m.query(x) @ m.key(x).mT
        return m.head((scores.softmax(-1) @ m.value(x)).mean(1))

    model = Net(forward, **{name: nn.Linear(4, 3) for name in ("query", "key", "value")}, head=nn.Linear(3, 3)).double()
    graph = s3d.trace(model, BATCH[0])
    with pytest.raises(s3d.ModelError, match="gradients, got one under no_grad"):
        kind(model, graph, [BATCH], loss_fn)
