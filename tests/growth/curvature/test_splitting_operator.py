import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.splitting_operator import RecomputedBatchOperator
from tests import reference
from tests.cases import BY_NAME, CASES, Case, all_cases, measured, smooth_cases

# The oracle softens activations that are modules.
with_modules = pytest.mark.parametrize(
    "case", [case for case in CASES if case.name != "functional-relu"], ids=lambda case: case.name
)


def operator(case: Case, model: nn.Module, *batches: tuple, smoothing: float = 3.0) -> s3d.SplittingOperator:
    graph = s3d.trace(model, case.inputs())
    return s3d.SplittingOperator(model, graph, batches or [case.batch()], case.loss_fn, smoothing)


def random_vectors(op: s3d.SplittingOperator, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, dtype=op.dtype, generator=generator) for name, shape in op.shapes.items()}


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


def test_activations_called_with_keywords():
    class Keyword(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[2](F.leaky_relu(input=self[0](x), negative_slope=0.2, inplace=True))

    torch.manual_seed(0)
    case = BY_NAME["mlp-relu"]
    model = Keyword(nn.Linear(4, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3)).double()
    twin = nn.Sequential(*model)
    assert torch.equal(operator(case, model).dense("0"), operator(case, twin).dense("0"))
    assert operator(case, twin).dense("0").abs().max() > 1e-4


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
def test_shapes_are_those_of_theta(case):
    run = measured(case)
    for group in run.graph.splittable_groups:
        assert run.op.shapes[group.name] == reference.theta(run.model, group).shape


@all_cases
def test_the_mean_over_minibatches_is_the_mean_over_all_samples(case):
    model = case.model()
    x, y = case.batch(9)
    whole = operator(case, model, (x, y))
    parts = operator(case, model, (x[:2], y[:2]), (x[2:3], y[2:3]), (x[3:], y[3:]))
    assert parts.samples == whole.samples == 9
    assert len(parts.parts) == 3
    for name in whole.shapes:
        torch.testing.assert_close(parts.dense(name), whole.dense(name), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_batches_that_are_not_kept_change_nothing(kept):
    case = BY_NAME["conv-bn-silu"]
    model, graph = case.model(), s3d.trace(case.model(), case.inputs())
    x, y = case.batch(9)
    batches = [(x[:3], y[:3]), (x[3:6], y[3:6]), (x[6:], y[6:])]
    whole = s3d.SplittingOperator(model, graph, batches, case.loss_fn)
    room = kept * whole.parts[0].nbytes + 1
    some = s3d.SplittingOperator(model, graph, batches, case.loss_fn, memory=room)
    assert [isinstance(part, RecomputedBatchOperator) for part in some.parts] == [n >= kept for n in range(3)]
    vectors = random_vectors(whole)
    for name, product in whole.matvec(vectors).items():
        assert torch.equal(some.matvec(vectors)[name], product)
        assert torch.equal(some.dense(name), whole.dense(name))


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


def test_frozen_parameters_and_no_grad_change_nothing():
    case = BY_NAME["residual-relu"]
    frozen = case.model().requires_grad_(False)
    with torch.no_grad():
        op = operator(case, frozen)
        for name in op.shapes:
            torch.testing.assert_close(op.dense(name), measured(case).op.dense(name), rtol=0, atol=1e-15)


def test_a_layer_may_read_a_buffer():
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.linspace(-1, 1, 8).reshape(2, 4))
            self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(x) * self.b(torch.tanh(self.a(self.table))).sum(0)

    torch.manual_seed(0)
    op = operator(BY_NAME["mlp-tanh"], Table().double())
    assert op.dense("a").abs().max() > 1e-4


def test_a_perfect_network_has_no_curvature():
    case = BY_NAME["conv-bn-silu"]
    model, x = case.model(), case.inputs()
    op = s3d.SplittingOperator(model, s3d.trace(model, x), [(x, model(x).detach())], F.mse_loss)
    for name in op.shapes:
        assert not op.dense(name).any()


def test_linear_neurons_have_no_curvature():
    torch.manual_seed(0)
    case = BY_NAME["mlp-relu"]
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    op = operator(case, model)
    assert not op.dense("0").any()
    assert op.dense("1").abs().max() > 1e-4
    assert not op.matvec(random_vectors(op))["0"].any()


def test_a_part_of_a_model_without_gradients_is_refused_by_name():
    class Silent(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                hidden = torch.tanh(self[1](torch.tanh(self[0](x))))
            return self[2](hidden)

    torch.manual_seed(0)
    model = Silent(nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    with pytest.raises(s3d.ModelError, match=r"1\.weight: expected a layer with gradients, got one under no_grad"):
        operator(BY_NAME["mlp-tanh"], model)


def test_a_branch_without_effect_on_the_loss():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = torch.tanh(self.a(x))
            return self.b(hidden), self.unused(hidden)

    torch.manual_seed(0)
    case, model = BY_NAME["mlp-tanh"], Branch().double()
    x, y = case.batch()
    op = s3d.SplittingOperator(model, s3d.trace(model, x), [(x, y)], lambda out, y: F.cross_entropy(out[0], y))
    alone = operator(case, nn.Sequential(model.a, nn.Tanh(), model.b))
    assert torch.equal(op.dense("a"), alone.dense("0"))


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


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("conv-bn-relu", "1", "BatchNorm2d"),
        ("residual-relu", "reduce_norm", "BatchNorm2d"),
        ("pool-flatten-gelu", "6", "Dropout"),
    ],
)
def test_random_layers_in_training_mode_are_refused_by_name(name, layer, kind):
    case = BY_NAME[name]
    model = case.model()
    model.get_submodule(layer).train()
    with pytest.raises(s3d.ModelError, match=f"^{layer}: expected evaluation mode, got a {kind} in training mode"):
        operator(case, model)


def test_a_random_activation_in_training_mode_is_refused():
    case, model = BY_NAME["mlp-relu"], nn.Sequential(nn.Linear(4, 5), nn.RReLU(), nn.Linear(5, 3)).double()
    with pytest.raises(s3d.ModelError, match="1: expected evaluation mode, got a RReLU in training mode"):
        operator(case, model)


def test_training_mode_of_layers_without_randomness_is_accepted():
    case = BY_NAME["pool-flatten-gelu"]
    model = case.model().train()
    model[6].p = 0
    assert torch.equal(operator(case, model).dense("0"), measured(case).op.dense("0"))


@pytest.mark.parametrize(
    ("drop", "accepted"),
    [
        (lambda x: F.dropout(x, 0.5), False),
        (lambda x: F.dropout(x, p=0.1, training=True), False),
        (lambda x: torch.dropout(x, 0.5, train=True), False),
        (lambda x: F.alpha_dropout(x, 0.5, True), False),
        (lambda x: F.dropout(x, 0.5, False), True),
        (lambda x: F.dropout(x, 0.0), True),
        (lambda x: F.alpha_dropout(x, 0.5), True),
    ],
)
def test_dropout_called_as_a_function(drop, accepted):
    class Drops(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[1](drop(torch.tanh(self[0](x))))

    torch.manual_seed(0)
    case, model = BY_NAME["mlp-tanh"], Drops(nn.Linear(4, 5), nn.Linear(5, 3)).double().eval()
    if accepted:
        assert operator(case, model).dense("0").abs().max() > 1e-4
    else:
        with pytest.raises(s3d.ModelError, match="dropout: expected training=False during curvature, got a call"):
            operator(case, model)


def test_a_batch_on_another_device_is_refused():
    case = BY_NAME["mlp-relu"]
    x, y = case.batch()
    for batch in ((x.to("meta"), y), (x, y)):
        model = case.model()
        if batch[0].device == x.device:
            graph = s3d.trace(model, x)
            model.to("meta")
            match = "batch: expected tensors on meta, where the model is, got cpu"
        else:
            graph = s3d.trace(model, x)
            match = "batch: expected tensors on cpu, where the model is, got meta"
        with pytest.raises(s3d.ModelError, match=match):
            s3d.SplittingOperator(model, graph, [batch], case.loss_fn)


def test_a_graph_of_another_model_is_refused():
    case = BY_NAME["mlp-relu"]
    other = nn.Sequential(*case.model(), nn.Linear(3, 3).double())
    with pytest.raises(s3d.ModelError, match=r"5\.weight: expected no such parameter, got one of shape"):
        s3d.SplittingOperator(other, measured(case).graph, [case.batch()], case.loss_fn)


def test_no_batches_are_refused():
    case = BY_NAME["mlp-relu"]
    with pytest.raises(s3d.ModelError, match="batches: expected at least one batch, got none"):
        s3d.SplittingOperator(measured(case).model, measured(case).graph, [], case.loss_fn)


def test_a_graph_without_splittable_groups_is_refused():
    model = nn.Linear(4, 3).double()
    case = BY_NAME["mlp-relu"]
    with pytest.raises(s3d.ModelError, match="graph: expected at least one splittable group, got none"):
        operator(case, model)


def test_vectors_of_another_shape_are_refused():
    op = measured(BY_NAME["mlp-relu"]).op
    with pytest.raises(s3d.ModelError, match=r"0: expected vectors of shape \(5, 5\), got \(5, 4\)"):
        op.matvec({"0": torch.zeros(5, 4, dtype=torch.float64)})


@pytest.mark.parametrize("name", ["4", "nothing"])
def test_groups_that_cannot_be_split_have_no_matrices(name):
    op = measured(BY_NAME["mlp-relu"]).op
    with pytest.raises(s3d.ModelError, match=f"{name}: expected a splittable group, one of 0, 2"):
        op.matvec({name: torch.zeros(3, 5, dtype=torch.float64)})
    with pytest.raises(s3d.ModelError, match=f"{name}: expected a splittable group, one of 0, 2"):
        op.dense(name)


def test_a_loss_that_is_no_scalar_is_refused():
    case = BY_NAME["mlp-relu"]
    with pytest.raises(s3d.ModelError, match=r"loss_fn: expected a scalar, .* got shape \(6,\)"):
        s3d.SplittingOperator(
            measured(case).model,
            measured(case).graph,
            [case.batch()],
            lambda out, y: F.cross_entropy(out, y, reduction="none"),
        )
