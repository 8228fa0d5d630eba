"""The splitting matrices by their definition: equal to those of the tape, in every network, with the same interface."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests import reference
from tests.cases import BY_NAME, CASES, measured
from tests.wide import WIDE, random_case

every_network = pytest.mark.parametrize(
    "case", [*CASES, *WIDE, *map(random_case, range(20))], ids=lambda case: case.name
)


def plain(case, *batches, smoothing=3.0) -> s3d.PlainSplittingOperator:
    run = measured(case)
    return s3d.PlainSplittingOperator(run.model, run.graph, batches or [case.batch()], case.loss_fn, smoothing)


@every_network
def test_it_is_equal_to_the_tape(case):
    op, oracle = measured(case).op, plain(case)
    assert oracle.shapes == op.shapes
    assert (oracle.samples, oracle.dtype, oracle.device) == (op.samples, op.dtype, op.device)
    generator = torch.Generator().manual_seed(0)
    vectors = {name: torch.randn(shape, dtype=op.dtype, generator=generator) for name, shape in op.shapes.items()}
    products = oracle.matvec(vectors)
    for name, product in op.matvec(vectors).items():
        scale = float(product.abs().max())
        torch.testing.assert_close(products[name], product, rtol=0, atol=1e-12 * scale + 1e-17)
        torch.testing.assert_close(oracle.dense(name), op.dense(name), rtol=1e-9, atol=1e-14)
        assert torch.equal(oracle.matvec({name: vectors[name]})[name], products[name])


@pytest.mark.parametrize("beta", [1.0, 10.0])
@pytest.mark.parametrize("name", ["conv-bn-relu", "separable-relu6", "gated-hardswish", "prelu"])
def test_smoothing_sets_the_same_sharpness(name, beta):
    case = BY_NAME[name]
    run = measured(case)
    op = s3d.SplittingOperator(run.model, run.graph, [case.batch()], case.loss_fn, beta)
    for group in op.shapes:
        torch.testing.assert_close(plain(case, smoothing=beta).dense(group), op.dense(group), rtol=1e-9, atol=1e-14)


def test_batches_folds_and_solvers():
    case = BY_NAME["conv-bn-silu"]
    run, (x, y) = measured(case), case.batch(9)
    batches = [(x[:2], y[:2]), (x[2:3], y[2:3]), (x[3:], y[3:])]
    op = s3d.SplittingOperator(run.model, run.graph, batches, case.loss_fn)
    oracle = plain(case, *batches)
    assert [part.samples for part in oracle.parts] == [2, 1, 6]
    assert [fold.samples for fold in oracle.folds] == [fold.samples for fold in op.folds]
    expected = s3d.spectrum(op, "exact")
    for name, found in s3d.spectrum(oracle, "exact").items():
        torch.testing.assert_close(found.lambda_min, expected[name].lambda_min, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(found.held_out.lambda_min, expected[name].held_out.lambda_min, rtol=1e-8, atol=1e-14)
    matrix = oracle.to_scipy("0", 1)
    torch.testing.assert_close(torch.as_tensor(matrix @ torch.eye(matrix.shape[0]).double().numpy()), op.dense("0")[1])


def test_passes_are_counted():
    oracle = plain(BY_NAME["mlp-tanh"])
    assert oracle.passes == 4
    oracle.dense("0")
    assert oracle.passes == 4 + 4 * 5


def test_what_was_written_in_place_goes_on():
    class Written(nn.Sequential):
        def forward(self, x):
            hidden = self[0](x)
            F.relu(hidden, inplace=True)
            return self[1](hidden)

    torch.manual_seed(0)
    model = Written(nn.Linear(3, 5), nn.Linear(5, 4)).double()
    batch = torch.randn(20, 3, dtype=torch.float64), torch.randint(4, (20,))
    graph = s3d.trace(model, batch[0])
    found, expected = (
        operator(model, graph, [batch], F.cross_entropy).dense("0")
        for operator in (s3d.PlainSplittingOperator, s3d.SplittingOperator)
    )
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-16)


def test_inputs_by_position_and_by_name():
    case = BY_NAME["mlp-tanh"]
    x, y = case.batch()
    expected = plain(case).dense("0")
    for inputs in ((x,), [x], {"input": x}):
        assert torch.equal(plain(case, (inputs, y)).dense("0"), expected)


@pytest.mark.parametrize("name", ["residual-relu", "functional-smooth"])
def test_the_model_is_untouched(name):
    case = BY_NAME[name]
    model = case.model()
    graph = s3d.trace(model, case.inputs())
    case.loss_fn(model(case.inputs()), case.targets()).backward()
    next(model.parameters()).requires_grad_(False)
    with reference.untouched(model), torch.no_grad():
        op = s3d.PlainSplittingOperator(model, graph, [case.batch()], case.loss_fn)
        op.dense(next(iter(op.shapes)))


def test_what_would_be_wrong_is_refused():
    case = BY_NAME["conv-bn-relu"]
    run, batch = measured(case), case.batch()
    with pytest.raises(s3d.ModelError, match="batches: expected at least one batch, got none"):
        s3d.PlainSplittingOperator(run.model, run.graph, [], case.loss_fn)
    with pytest.raises(s3d.ModelError, match="1: expected evaluation mode, got a BatchNorm2d in training mode"):
        s3d.PlainSplittingOperator(case.model().train(), run.graph, [batch], case.loss_fn)
    with pytest.raises(s3d.ModelError, match=r"loss_fn: expected a scalar, .* got shape \(6,\)"):
        s3d.PlainSplittingOperator(run.model, run.graph, [batch], lambda a, b: F.cross_entropy(a, b, reduction="none"))
    with pytest.raises(s3d.ModelError, match=r"0: expected vectors of shape \(4, 18\), got \(4, 3\)"):
        plain(case).matvec({"0": torch.zeros(4, 3, dtype=torch.float64)})
    with pytest.raises(s3d.ModelError, match="nothing: expected a splittable group, one of 0, 3"):
        plain(case).dense("nothing")


def test_a_part_of_a_model_without_gradients_is_refused():
    class Silent(nn.Sequential):
        def forward(self, x):
            with torch.no_grad():
                hidden = torch.tanh(self[1](torch.tanh(self[0](x))))
            return self[2](hidden)

    model = Silent(nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    case = BY_NAME["mlp-tanh"]
    with pytest.raises(s3d.ModelError, match="model: expected every consumer with gradients, got one under no_grad"):
        s3d.PlainSplittingOperator(model, s3d.trace(model, case.inputs()), [case.batch()], case.loss_fn)


class Words(nn.Module):
    """A table of words and one of places, a layer that is written by hand, and attention."""

    def __init__(self, attention: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4, padding_idx=2), nn.Embedding(5, 4)
        self.query, self.value, self.attention = nn.Linear(4, 4), nn.Linear(4, 4), attention
        self.hidden, self.head = nn.Parameter(torch.randn(4, 6) / 2), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.words(x) + self.places(torch.arange(5)))
        if self.attention:
            x = torch.tanh(F.scaled_dot_product_attention(self.query(x), x, self.value(x)))
        return self.head(torch.tanh(x @ self.hidden).mean(1))


@pytest.mark.parametrize("attention", [False, True])
def test_embeddings_products_and_attention(attention):
    torch.manual_seed(0)
    model = Words(attention).double().eval()
    batch = torch.randint(7, (6, 5)), torch.randint(3, (6,))
    graph = s3d.trace(model, batch[0])
    assert graph.widths == ({"words": 4, "value": 4, "hidden": 6} if attention else {"words": 4, "hidden": 6})
    op = s3d.SplittingOperator(model, graph, [batch], F.cross_entropy)
    oracle = s3d.PlainSplittingOperator(model, graph, [batch], F.cross_entropy)
    for name in op.shapes:
        torch.testing.assert_close(oracle.dense(name), op.dense(name), rtol=1e-9, atol=1e-14)
        assert float(op.dense(name).abs().max()) > 1e-4
    copies = {name: torch.full((width,), 2) for name, width in graph.widths.items()}
    plan = s3d.plan_from_copies(graph, copies, s3d.spectrum(op, "exact"), c=3.0)
    grown = s3d.split(model, graph, plan, 1e-3).model
    losses = [float(F.cross_entropy(network(batch[0]), batch[1]).detach()) for network in (grown, model)]
    assert losses[0] - losses[1] == pytest.approx(1e-6 / 2 * plan.gain, rel=0.02)
