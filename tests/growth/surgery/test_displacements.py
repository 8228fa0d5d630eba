import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.surgery.displacements import StepLength
from tests import reference
from tests.cases import BY_NAME, measured, random_plan


def test_a_step_is_as_long_as_epsilon_or_that_many_times_theta():
    theta = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert StepLength(0.1).of(theta) == 0.1
    torch.testing.assert_close(StepLength(0.1, relative=True).of(theta), torch.tensor([[0.5], [0.0]]))


@pytest.mark.parametrize("epsilon", [-0.1, float("inf"), float("nan")])
def test_a_wrong_epsilon_is_refused(epsilon):
    case = BY_NAME["mlp-tanh"]
    with pytest.raises(s3d.ConfigError, match="epsilon: expected a number >= 0, got"):
        s3d.split(measured(case).model, measured(case).graph, random_plan(case, 0), epsilon)


def test_relative_epsilon_is_in_units_of_theta():
    case = BY_NAME["residual-silu"]
    run = measured(case)
    plan = dataclasses.replace(random_plan(case, seed=1), relative=True)
    result = s3d.split(run.model, run.graph, plan, epsilon=0.1)
    theta = reference.theta(run.model, run.graph["stem"])
    source = result.index_map["stem"]
    move = result.model.stem.weight.flatten(1) - run.model.stem.weight.flatten(1)[source]
    expected = 0.1 * theta.norm(dim=1)[source, None] * plan.displacements["stem"][:, : move.shape[1]]
    torch.testing.assert_close(move, expected)
    assert move.abs().max() > 1e-3


class Residual(nn.Module):
    """Two layers produce one stream."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = torch.tanh(self.a(x))
        return self.c(torch.tanh(x + self.b(x)))


FROZEN = {  # a network, and what is frozen in it
    "a layer": (lambda: nn.Sequential(*layers(), nn.Tanh(), nn.Linear(6, 2)), ("0.weight", "0.bias")),
    "a weight but not its bias": (lambda: nn.Sequential(*layers(), nn.Tanh(), nn.Linear(6, 2)), ("0.weight",)),
    "one of two producers": (Residual, ("a.weight", "a.bias")),
    "all consumers": (lambda: nn.Sequential(*layers(), nn.Tanh(), nn.Linear(6, 2)), ("4.weight", "2.weight")),
}


def layers():
    return nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6)


@pytest.mark.parametrize("operator", [s3d.SplittingOperator, s3d.PlainSplittingOperator])
@pytest.mark.parametrize("name", FROZEN)
def test_frozen_parameters_do_not_move_and_the_prediction_is_that_of_the_others(name, operator):
    build, frozen = FROZEN[name]
    torch.manual_seed(0)
    model, x, t = build().double(), torch.randn(64, 4, dtype=torch.float64), torch.randint(2, (64,))
    for parameter, value in model.named_parameters():
        value.requires_grad_(parameter not in frozen)
    graph = s3d.trace(model, x)
    assert graph.frozen == set(frozen)
    op = operator(model, graph, [(x, t)], F.cross_entropy)
    plan = s3d.select(s3d.spectrum(op, solver="exact"), graph, s3d.TopFraction(1.0))
    assert plan.gain < -1e-4
    epsilon = 1e-3
    result = s3d.split(model, graph, plan, epsilon=epsilon)
    change = F.cross_entropy(result.model(x), t) - F.cross_entropy(model(x), t)
    assert change.item() / (epsilon**2 / 2 * plan.gain) == pytest.approx(1, abs=0.01)
    still = s3d.split(model, graph, plan, epsilon=0).model.state_dict()
    moved = {key: not torch.equal(value, still[key]) for key, value in result.model.state_dict().items()}
    assert not any(moved[key] for key in frozen)
    assert any(moved.values())
    assert result.graph.frozen == graph.frozen


def test_a_frozen_layer_is_left_alone_and_named():
    model = FROZEN["a layer"][0]()
    model[0].requires_grad_(False)
    x, t = torch.randn(16, 4), torch.randint(2, (16,))
    graph = s3d.trace(model, x)
    assert "frozen, so that nothing is gained by splitting: 0" in str(graph)
    op = s3d.SplittingOperator(model, graph, [(x, t)], F.cross_entropy)
    plan = s3d.select(s3d.spectrum(op), graph, s3d.TopFraction(1.0))
    assert s3d.split(model, graph, plan).widths["0"] == 5
    assert not s3d.trace(model.requires_grad_(False), x).frozen  # nothing is trained at all
