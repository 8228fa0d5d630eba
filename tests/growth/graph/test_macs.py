"""MACs against PyTorch's own counter, of whole networks and of functions without a rule."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.flop_counter import FlopCounterMode

import nni_s3d as s3d
from nni_s3d.growth.graph.macs import MacCounter
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.selection.policies import budget_of
from nni_s3d.tasks.inspection import table
from tests.cases import BY_NAME
from tests.wide import WIDE, Net


def flop_counter_macs(model: nn.Module, inputs: Tensor) -> float:
    """Return MACs per sample as FlopCounterMode counts them; it does not know the fused attention of a CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.eval()(inputs)
    return counter.get_total_flops() / 2 / len(inputs)


def macs(model: nn.Module, inputs: Tensor) -> int:
    return s3d.count(read_graph(model, inputs)).macs


def between(forward, **modules: nn.Module) -> Net:
    """Return a network with a function between two linear layers 4 -> 6 and 6 -> 3."""
    return Net(lambda m, x: m.b(forward(m, m.a(x))), a=nn.Linear(4, 6), b=nn.Linear(6, 3), **modules)


class Experts(nn.Module):
    """Every expert sees a third of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([expert(x[i::3]) for i, expert in enumerate(self.experts)])


def attention(**settings: object) -> nn.Module:
    return nn.MultiheadAttention(6, 2, batch_first=True, **settings)


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)


NETWORKS = {
    "resnet18": (lambda: torchvision.models.resnet18(), (2, 3, 64, 64)),
    "mobilenet": (lambda: torchvision.models.mobilenet_v3_small(), (1, 3, 64, 64)),
    "vit": (vit, (2, 3, 32, 32)),
    "einsum": (lambda: between(lambda m, x: torch.einsum("ni,ij->nj", x, torch.ones(6, 6))), (5, 4)),
    "GRU": (lambda: between(lambda m, x: m.gru(x)[0], gru=nn.GRU(6, 6, 2)), (5, 7, 4)),
    "tensordot": (lambda: between(lambda m, x: torch.tensordot(x, torch.ones(6, 6), 1)), (5, 4)),
    "addmm": (lambda: between(lambda m, x: torch.addmm(x, x, torch.ones(6, 6))), (5, 4)),
    "mm by keyword": (lambda: between(lambda m, x: torch.mm(x, mat2=torch.ones(6, 6))), (5, 4)),
    "matmul of operators": (lambda: between(lambda m, x: x @ (x.mT @ x)), (5, 7, 4)),
    "a computed weight": (lambda: between(lambda m, x: F.linear(x, 2 * m.c.weight), c=nn.Linear(6, 6)), (5, 4)),
    "weight norm": (
        lambda: nn.Sequential(weight_norm(nn.Conv2d(2, 8, 3, groups=2)), nn.ReLU(), weight_norm(nn.Conv2d(8, 3, 1))),
        (2, 2, 8, 8),
    ),
    "a computed weight, transposed": (
        lambda: Net(
            lambda m, x: F.conv_transpose2d(x, m.a.weight.tanh(), groups=2), a=nn.ConvTranspose2d(4, 6, 3, groups=2)
        ),
        (2, 4, 5, 5),
    ),
    "depthwise, transposed": (lambda: nn.ConvTranspose2d(4, 4, 3, groups=4, stride=2), (2, 4, 5, 5)),
    "experts": (Experts, (12, 6)),
    "old weight norm": (
        lambda: nn.Sequential(old_weight_norm(nn.Conv1d(3, 8, 3)), nn.ReLU(), nn.Linear(6, 2)),
        (2, 3, 8),
    ),
    "spectral norm": (lambda: nn.Sequential(spectral_norm(nn.Conv1d(3, 8, 3)), nn.ReLU(), nn.Linear(6, 2)), (2, 3, 8)),
    "standardised convolution": (
        lambda: Net(
            lambda m, x: F.conv2d(x, m.a.weight / m.a.weight.std((1, 2, 3), keepdim=True)), a=nn.Conv2d(3, 8, 3)
        ),
        (2, 3, 8, 8),
    ),
    "grouped, transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 3)),
        (2, 4, 5, 5),
    ),
    "attention by products": (lambda: between(lambda m, x: (x @ x.mT).softmax(-1) @ x), (2, 7, 4)),
    "attention by einsum": (
        lambda: between(lambda m, x: torch.einsum("bij,bjd->bid", torch.einsum("bid,bjd->bij", x, x), x)),
        (2, 7, 4),
    ),
    "attention with other keys": (
        lambda: between(lambda m, x: F.scaled_dot_product_attention(x, x[:, :3], x[:, :3])),
        (2, 7, 4),
    ),
    "attention in a module": (lambda: between(lambda m, x: m.t(x, x, x)[0], t=attention()), (2, 7, 4)),
    "cross attention": (lambda: between(lambda m, x: m.t(x[:, :2], x, x)[0], t=attention()), (2, 7, 4)),
    "attention with a key of its own": (
        lambda: between(lambda m, x: m.t(x, x, x)[0], t=attention(add_bias_kv=True, add_zero_attn=True)),
        (2, 7, 4),
    ),
    "keys of another size": (
        lambda: between(lambda m, x: m.t(x, m.k(x), m.k(x))[0], t=attention(kdim=5, vdim=5), k=nn.Linear(6, 5)),
        (2, 7, 4),
    ),
    "decoder": (
        lambda: Net(lambda m, x: m.t(x, x[:, :3]), t=nn.TransformerDecoderLayer(6, 2, 16, batch_first=True)),
        (2, 7, 6),
    ),
    "GRU cell": (lambda: between(lambda m, x: m.t(x, m.t(x)), t=nn.GRUCell(6, 6)), (5, 4)),
    "LSTM cell": (lambda: between(lambda m, x: m.t(x)[1], t=nn.LSTMCell(6, 6)), (5, 4)),
    "experts of products": (
        lambda: between(lambda m, x: (x[:, None, None] @ m.c.weight).mean((1, 2)), c=nn.Linear(6, 6)),
        (5, 4),
    ),
    "norms and angles": (lambda: between(lambda m, x: x / x.norm() * F.cosine_similarity(x, x)[:, None]), (5, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_those_of_the_flop_counter(name):
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    model, inputs = build(), torch.randn(shape)
    assert macs(model, inputs) == pytest.approx(flop_counter_macs(model, inputs), abs=0.5)
    assert not read_graph(model, inputs).uncounted


@pytest.mark.parametrize("case", [*BY_NAME.values(), *WIDE], ids=lambda case: case.name)
def test_macs_of_every_case_are_those_of_the_flop_counter(case):
    model, inputs = case.model(), case.inputs()
    assert macs(model, inputs) == flop_counter_macs(model, inputs)
    assert not read_graph(model, inputs).uncounted


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "layer, weights",
    [
        (nn.LSTM(4, 6, 2, batch_first=True), 4 * 6 * (4 + 6) + 4 * 6 * (6 + 6)),
        (nn.LSTM(4, 6, proj_size=2, bidirectional=True, batch_first=True), 2 * (4 * 6 * (4 + 2) + 2 * 6)),
        (nn.GRU(4, 6, batch_first=True), 3 * 6 * (4 + 6)),
        (nn.RNN(4, 6, nonlinearity="relu", batch_first=True), 6 * (4 + 6)),
    ],
)
def test_recurrent_layers_apply_every_matrix_at_every_step(layer, weights, packed):
    def forward(m: Net, x: Tensor) -> Tensor:
        if packed:
            x = nn.utils.rnn.pack_padded_sequence(x, [7, 7], batch_first=True)
        out = m.layer(x)[0]
        return out.data if packed else out.mean(1)

    assert macs(Net(forward, layer=layer), torch.randn(2, 7, 4)) == 7 * weights


@pytest.mark.parametrize(
    "func",
    [
        lambda x: x.mv(torch.ones(6)),
        lambda x: x[0].dot(torch.ones(6)) + x[1].dot(torch.ones(6)) + x[2].dot(torch.ones(6)),
        lambda x: torch.stack([torch.vdot(row, torch.ones(6)) for row in x]),
    ],
)
def test_products_of_vectors_are_counted(func):
    with MacCounter() as counter:
        func(torch.ones(3, 6))
    assert (counter.macs, counter.unknown) == (3 * 6, False)


def test_attention_is_counted_whatever_kernel_runs():
    x = torch.ones(2, 3, 7, 4)
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        with MacCounter() as counter, sdpa_kernel(backend):
            F.scaled_dot_product_attention(x, x[:, :, :5], x[:, :, :5])
        assert (counter.macs, counter.unknown) == (2 * 3 * 7 * 5 * (4 + 4), False)


FREE = [
    lambda x: x[:, [0, 2, 1]] + x.cumsum(0),
    lambda x: torch.where(x > 0, x, -x).sort().values.cummax(0)[0],
    lambda x: F.layer_norm(x, (3,), torch.ones(3), torch.ones(3)) * F.group_norm(x, 3, torch.ones(3), torch.ones(3)),
    lambda x: F.grid_sample(x.reshape(1, 1, -1, 3), torch.zeros(1, 2, 2, 2), align_corners=False),
    lambda x: F.embedding(torch.tensor([0, 1]), x) + F.one_hot(torch.tensor([0, 1]), 3),
    lambda x: torch.index_add(x, 0, torch.tensor([0]), x[:1]).scatter(0, torch.tensor([[0]]), x[:1]),
    lambda x: F.mse_loss(x, x + 1) + F.cross_entropy(x, torch.zeros(len(x), dtype=torch.int64)),
    lambda x: (F.unfold(x.reshape(1, 1, -1, 3), 2), torch.isclose(x, x).all(), torch.topk(x, 2)),
    lambda x: torch.outer(x[0], x[1]).triu() + torch.addcmul(x[:3], x[:3], x[:3]).lerp(x[:3], 0.5).std(),
    lambda x: torchvision.ops.roi_align(x.reshape(1, 1, -1, 3), torch.zeros(1, 5), 2),
    lambda x: x.norm(dim=1) + torch.linalg.cross(x, x).sum(1) + torch.dist(x, x + 1) + x.kthvalue(1).values,
    lambda x: (F.glu(x, 0), torch.polar(x, x), torch.block_diag(x, x), F.rrelu(x), F.cosine_similarity(x, x)),
    lambda x: F.embedding_bag(torch.tensor([[0, 1]]), x, per_sample_weights=torch.ones(1, 2), mode="sum"),
    lambda x: F.binary_cross_entropy_with_logits(x, x.sigmoid()) + F.fractional_max_pool2d(x[None], 2, 1).sum(),
]


@pytest.mark.parametrize("func", FREE)
def test_functions_that_move_compare_or_average_do_no_macs(func):
    with MacCounter() as counter:
        func(torch.randn(6, 3))
    assert (counter.macs, counter.unknown) == (0, False)


UNKNOWN = {
    "fft_fft": lambda x: torch.fft.fft(x).real,
    "cdist": lambda x: torch.cdist(x, x[:6]),
    "bilinear": lambda x: F.bilinear(x, x, torch.ones(6, 6, 6)),
    "deform_conv2d": lambda x: torchvision.ops.deform_conv2d(
        x.reshape(1, 1, 6, 6), torch.zeros(1, 2, 6, 6), torch.ones(1, 1, 1, 1)
    ).reshape(6, 6),
    "linalg_inv": lambda x: x + torch.linalg.inv(torch.eye(6)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_nobody_can_count_is_named_wherever_costs_are_and_refused_as_a_budget(name):
    model = between(lambda m, x: m.c(UNKNOWN[name](m.d(x))), c=nn.Linear(6, 6), d=nn.Linear(6, 6))
    graph = read_graph(model, torch.randn(6, 4))
    known = name.removeprefix("fft_").removeprefix("linalg_")
    assert graph.uncounted in ((name,), (known,))
    said = f"MACs and FLOPs are not known of: {graph.uncounted[0]}"
    assert str(graph).splitlines()[-1] == table(graph).splitlines()[-1] == said
    assert s3d.count(graph).params == sum(p.numel() for p in model.parameters())
    refusal = f"expected a budget in params or neurons, got one in macs, which is not known of {graph.uncounted[0]}"
    with pytest.raises(s3d.ConfigError, match=f"budget: {refusal}"):
        budget_of(s3d.Knapsack(growth=0.5), graph)
    assert budget_of(s3d.Knapsack(growth=0.5, cost="params"), graph) > 0
