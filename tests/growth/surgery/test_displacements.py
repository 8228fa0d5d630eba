import dataclasses

import pytest
import torch

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
