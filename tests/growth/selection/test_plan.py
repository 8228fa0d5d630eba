"""A plan as data: JSON and tensors, there and back."""

import json

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import GrowthPlan, ModelError, TopK
from nni_s3d.growth.graph.theta import theta_norms
from tests.cases import BY_NAME, measured
from tests.growth.selection.made_up import C, network


def test_a_plan_as_json():
    run = measured(BY_NAME["mlp-tanh"])
    plan = s3d.select(run.spectrum, run.graph, TopK(2), 3, c=C)
    found = json.loads(json.dumps(plan.to_json()))
    assert found["copies"] == {name: number.tolist() for name, number in plan.copies.items()}
    assert found["widths"] == plan.widths
    assert (found["gain"], found["params"], found["macs"], found["flops"]) == (
        plan.gain,
        plan.params,
        plan.macs,
        plan.flops,
    )


@pytest.mark.parametrize("moving", [False, True])
def test_a_plan_comes_back_from_json_and_tensors(moving):
    run = measured(BY_NAME["residual-silu"])
    copies = {"stem": torch.tensor([2, 1, 4, 3])}
    plan = s3d.plan_from_copies(run.graph, copies, run.spectrum if moving else None)
    back = GrowthPlan.load(json.loads(json.dumps(plan.to_json())), plan.to_tensors())
    assert back.to_json() == plan.to_json()
    tensors = back.to_tensors()
    assert tensors.keys() == plan.to_tensors().keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in plan.to_tensors().items())
    assert list(back.copies) == list(plan.copies)
    assert bool(back.displacements) == moving
    models = [s3d.split(run.model, run.graph, p, 0.1).model.state_dict() for p in (plan, back)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_the_unit_comes_back_from_the_disk_and_an_older_plan_is_refused():
    run = measured(BY_NAME["mlp-tanh"])
    units = theta_norms(run.graph.splittable_groups, dict(run.model.named_parameters()))
    plan = s3d.plan_from_copies(run.graph, {"0": [2, 1, 1, 1, 1]}, run.spectrum, theta_norms=units)
    content = json.loads(json.dumps(plan.to_json()))
    assert GrowthPlan.load(content, plan.to_tensors()).relative
    del content["relative"]
    older = "plan: expected one that says in which unit epsilon is measured, got one of an older version; start again"
    with pytest.raises(ModelError, match=f"^{older} with a new store$"):
        GrowthPlan.load(content, plan.to_tensors())


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda json, tensors: (without(json, "copies"), tensors), "return, got KeyError: 'copies'"),
        (lambda json, tensors: (without(json, "params"), tensors), "return, got KeyError: 'params'"),
        (lambda json, tensors: ({**json, "copies": 3}, tensors), "return, got TypeError"),
        (lambda json, tensors: (json, without(tensors, "weights/0")), "return, got KeyError: '0'"),
        (lambda json, tensors: ({**json, "widths": {}}, tensors), "of one plan, got those of two"),
        (lambda json, tensors: (json, {**tensors, "copies/0": tensors["copies/0"] + 1}), "of one plan, got those"),
        (lambda json, tensors: (json, {**tensors, "weights/0": tensors["weights/0"][1:]}), "of one plan, got those"),
    ],
)
def test_what_is_no_plan_is_refused(change, match):
    run = measured(BY_NAME["mlp-tanh"])
    plan = s3d.plan_from_copies(run.graph, {"0": [2, 1, 1, 1, 1]}, run.spectrum)
    with pytest.raises(s3d.ModelError, match=f"plan: expected .*{match}"):
        s3d.GrowthPlan.load(*change(plan.to_json(), plan.to_tensors()))


def test_plans_can_be_compared():
    graph = network(4)
    first, second = (s3d.plan_from_copies(graph, {"0": [2, 1, 1, 1]}) for _ in range(2))
    assert first == first
    assert first != second
    assert len({first, second}) == 2
