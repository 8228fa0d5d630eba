import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests import reference
from tests.cases import BY_NAME, CASES, all_cases, measured, operator, random_vectors, smooth_cases

# The oracle softens activations that are modules.
with_modules = pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "functional-relu"], ids=lambda case: case.name
)


@with_modules
def test_dense_is_the_hessian_of_the_twofold_network(case):
    run = measured(case)
    for group in run.graph.splittable_groups:
        expected = reference.splitting_matrices(run.model, group, case.batch(), case.loss_fn)
        assert expected.abs().max() > 1e-5
        torch.testing.assert_close(run.op.dense(group.name), expected, rtol=1e-9, atol=1e-14)


@smooth_cases
def test_splits_of_different_neurons_add_up(case):
    run = measured(case)
    for group in run.graph.splittable_groups:
        full = reference.hessian(run.model, group, case.batch(), case.loss_fn)
        for i in range(group.width):
            full[i, :, i] = 0
        assert full.abs().max() < 1e-15


@pytest.mark.parametrize("beta", [1.0, 3.0, 10.0])
def test_smoothing_sets_the_sharpness(beta):
    case = BY_NAME["conv-bn-relu"]
    run = measured(case)
    op = operator(case, run.model, smoothing=beta)
    expected = reference.splitting_matrices(run.model, run.graph["0"], case.batch(), case.loss_fn, beta)
    torch.testing.assert_close(op.dense("0"), expected, rtol=1e-9, atol=1e-14)


def test_activations_that_are_no_modules_are_smoothed_too():
    case = BY_NAME["functional-relu"]
    functional = case.model()
    a, b, c, head = functional.layers
    twin = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), Twice(), c, nn.ReLU(), head)
    op, expected = operator(case, functional), operator(case, twin)
    for name, other in zip(("layers.0", "layers.1", "layers.2"), ("0", "2", "5"), strict=True):
        assert expected.dense(other).abs().max() > 1e-4
        torch.testing.assert_close(op.dense(name), expected.dense(other), rtol=0, atol=1e-15)


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_eq_2_in_closed_form():
    torch.manual_seed(0)
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    op = s3d.SplittingOperator(model, s3d.trace(model, x), [(x, y)], lambda out, y: ((out - y) ** 2).sum(1).mean())

    hidden = torch.tanh(model[0](x))
    slope = 2 * (model(x) - y) @ model[2].weight  # of the loss of each sample, with respect to its hidden neurons
    curved = -2 * hidden * (1 - hidden**2)  # tanh''
    with_one = torch.cat([x, torch.ones(9, 1, dtype=x.dtype)], 1)
    S = torch.einsum("ni,na,nb->iab", slope * curved, with_one, with_one) / 9
    torch.testing.assert_close(op.dense("0"), S, rtol=1e-12, atol=1e-15)


@all_cases
def test_products_agree_with_the_dense_matrices(case):
    op = measured(case).op
    vectors = random_vectors(op)
    together = op.matvec(vectors)
    for name, vector in vectors.items():
        S = op.dense(name)
        torch.testing.assert_close(S, S.mT, rtol=0, atol=1e-15)
        torch.testing.assert_close(together[name], torch.einsum("nij,nj->ni", S, vector), rtol=1e-10, atol=1e-15)
        assert torch.equal(op.matvec({name: vector})[name], together[name])


@all_cases
def test_the_model_is_untouched(case):
    model = case.model()
    x, y = case.batch()
    case.loss_fn(model(x), y).backward()
    next(model.parameters()).requires_grad_(False)
    with reference.untouched(model):
        op = operator(case, model)
        op.matvec(random_vectors(op))
        op.dense(next(iter(op.shapes)))


def test_the_model_is_untouched_when_the_loss_fails():
    model = BY_NAME["mlp-relu"].model()
    graph = s3d.trace(model, BY_NAME["mlp-relu"].inputs())

    def fail(*_: object) -> torch.Tensor:
        raise ZeroDivisionError

    with reference.untouched(model), pytest.raises(ZeroDivisionError):
        s3d.SplittingOperator(model, graph, [BY_NAME["mlp-relu"].batch()], fail)
    assert torch.relu(torch.tensor(-1.0)) == 0  # no mode was left switched on


def test_a_perfect_network_has_no_curvature():
    case = BY_NAME["conv-bn-silu"]
    model, x = case.model(), case.inputs()
    op = s3d.SplittingOperator(model, s3d.trace(model, x), [(x, model(x).detach())], F.mse_loss)
    for name in op.shapes:
        assert op.dense(name).abs().max() < 1e-15  # what rounding leaves


def test_linear_neurons_have_no_curvature():
    torch.manual_seed(0)
    case = BY_NAME["mlp-relu"]
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    op = operator(case, model)
    assert not op.dense("0").any()
    assert op.dense("1").abs().max() > 1e-4
    assert not op.matvec(random_vectors(op))["0"].any()


def test_batches_may_come_from_a_generator_and_have_dict_inputs():
    class Named(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    case = BY_NAME["mlp-tanh"]
    model, (x, y) = Named(*case.model()), case.batch()
    op = s3d.SplittingOperator(model, s3d.trace(model, {"x": x}), (({"x": x}, y) for _ in range(2)), case.loss_fn)
    assert op.samples == 12
    torch.testing.assert_close(op.dense("0"), measured(case).op.dense("0"))


def test_float32_models_keep_their_precision():
    case = BY_NAME["separable-silu"]
    model, (x, y) = case.model().float(), case.batch()
    op = s3d.SplittingOperator(model, s3d.trace(model, x.float()), [(x.float(), y)], case.loss_fn)
    for name in op.shapes:
        dense = op.dense(name)
        assert dense.dtype == op.dtype == torch.float32
        torch.testing.assert_close(dense.double(), measured(case).op.dense(name), rtol=1e-3, atol=1e-8)


def test_no_batches_are_refused():
    case = BY_NAME["mlp-relu"]
    with pytest.raises(s3d.ModelError, match="batches: expected at least one batch, got none"):
        s3d.SplittingOperator(measured(case).model, measured(case).graph, [], case.loss_fn)


LOW_PRECISION = {
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 8), nn.SiLU(), nn.Linear(8, 3)), (12,)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.Hardswish(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3),
        ),
        (3, 8, 8),
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3)), (6,)
    ),
}  # fmt: skip


@pytest.mark.parametrize("operator", [s3d.SplittingOperator, s3d.PlainSplittingOperator])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOW_PRECISION)
def test_a_network_in_low_precision_has_about_the_matrices_of_its_twin_and_grows(name, dtype, operator):
    build, shape = LOW_PRECISION[name]
    torch.manual_seed(0)
    model, x, t = build().to(dtype).eval(), torch.randn(64, *shape), torch.randint(3, (64,))
    twin = copy.deepcopy(model).double()
    x = x.to(dtype)

    def loss_fn(outputs, targets):
        return F.cross_entropy(outputs.float(), targets)

    graph = s3d.trace(model, x)
    assert graph.widths == s3d.trace(twin, x.double()).widths
    op = operator(model, graph, [(x, t)], loss_fn)
    exact = s3d.PlainSplittingOperator(twin, graph, [(x.double(), t)], F.cross_entropy)
    for group in graph.splittable_groups:
        S, expected = op.dense(group.name), exact.dense(group.name)
        assert S.dtype == torch.float32
        assert float((S - expected).norm() / expected.norm()) < (0.1 if dtype == torch.bfloat16 else 0.01)
    plan = s3d.select(s3d.spectrum(op), graph, s3d.TopFraction(0.5))
    result = s3d.split(model, graph, plan, epsilon=0)
    assert {p.dtype for p in result.model.parameters()} == {dtype}
    torch.testing.assert_close(result.model(x), model(x), rtol=0.03, atol=0.03)


def test_many_samples_in_half_precision_do_not_vanish():
    torch.manual_seed(0)
    model, x, t = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(9000, 4), torch.zeros(9000)
    model[2].weight.data.mul_(1e-3)
    graph = s3d.trace(model, x[:3])

    def loss_fn(outputs, targets):
        return (outputs[:, 0].float() - targets).square().mean()

    expected = s3d.SplittingOperator(model, graph, [(x, t)], loss_fn).dense("0")
    S = s3d.SplittingOperator(model.half(), s3d.trace(model, x[:3].half()), [(x.half(), t)], loss_fn).dense("0")
    assert float((S - expected).norm() / expected.norm()) < 0.05
