"""What holds for every structure: splits that do not move change nothing, and small ones what is predicted."""

import copy

import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from tests import reference
from tests.cases import measured
from tests.wide import WIDE, random_case

RANDOM = tuple(random_case(seed) for seed in range(60))
every_case = pytest.mark.parametrize("case", [*WIDE, *RANDOM], ids=lambda case: case.name)
wide_cases = pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)


def loss(case, model, samples=6):
    return float(case.loss_fn(model(case.inputs(samples)), case.targets(samples)))


def random_copies(graph, seed, choices=(1, 2, 3, 4)):
    return with_equal_parts(graph, reference.plan_of_random_copies(graph, choices, seed))


WIDTHS = {
    "dense": {"stem": 3, "convs.0": 2, "convs.1": 2, "transition": 4},
    "grouped": {"stem": 4, "reduce": 6, "grouped": 6},
    "grouped-gate": {"stem": 4, "grouped": 4, "squeeze": 2, "project": 4},
    "shuffled": {"stem": 8, "first": 8, "second": 4},
    "split": {"stem": 6, "inner": 3, "out": 4},
    "ghost": {"stem": 2, "stem#2": 1, "reduce": 1, "reduce#2": 2, "inner": 2, "out": 4},
    "overlap": {"left": 2, "right": 3, "read": 4},
    "unet": {"down": 3, "deep": 4, "up": 3, "fuse": 3},
    "transformer": {"gate": 5, "fc1": 6},
    "scaled": {"stem": 4},
    "volume": {"conv": 3, "hidden": 4},
    "auxiliary": {"stem": 4, "deep": 3, "aux": 2},
    "glu": {"first": 3, "second": 4},
    "points": {"point": 4, "deep": 5},
    "neighbours": {"convs.0": 4, "convs.1": 3, "convs.2": 4},
    "window-merge": {"embed": 3, "merge": 4},
    "constants": {"a": 4, "b": 4, "read": 3},
    "stream": {"embed": 4, "fc1": 6},
    "averages": {"stem": 4, "wide": 6, "free": 5},
    "tokens": {"stem": 6, "split": 2},
    "class-token": {"token": 6, "hidden": 3},
    "heads": {"all": 4, "all#2": 4, "query": 3, "four": 4, "value": 4, "mix": 4},
}


@wide_cases
def test_every_group_is_found(case):
    assert measured(case).graph.widths == WIDTHS[case.name]


@every_case
@pytest.mark.parametrize("copies", [2, 3, 4, None])
def test_splits_that_do_not_move_change_nothing(case, copies):
    run = measured(case)
    if copies is None:
        number = random_copies(run.graph, seed=3)
    else:
        number = {group.name: torch.full((group.width,), copies) for group in run.graph.splittable_groups}
    plan = s3d.plan_from_copies(run.graph, number, c=2.0)
    result = s3d.split(run.model, run.graph, plan, epsilon=0)
    inputs = case.inputs()
    torch.testing.assert_close(result.model(inputs), run.model(inputs), rtol=0, atol=1e-10)
    assert result.widths == plan.widths == s3d.trace(result.model, inputs).widths
    cost = s3d.count(result.graph)
    assert (cost.params, cost.macs, cost.flops) == (plan.params, plan.macs, plan.flops)
    assert cost.params == sum(parameter.numel() for parameter in result.model.parameters())


@every_case
@pytest.mark.parametrize("c", [1.0, 3.0])
def test_the_loss_changes_as_predicted(case, c):
    run, epsilon = measured(case), 1e-3
    plan = s3d.plan_from_copies(run.graph, random_copies(run.graph, seed=5), run.spectrum, c=c)
    grown = s3d.split(run.model, run.graph, plan, epsilon).model
    change = loss(case, grown) - loss(case, run.model)
    assert plan.gain < 0
    assert change == pytest.approx(epsilon**2 / 2 * plan.gain, rel=0.02)


@wide_cases
@pytest.mark.parametrize(
    "policy", [s3d.TopFraction(0.4), s3d.Knapsack(growth=0.8), s3d.Knapsack(growth=0.8, relaxed=True)]
)
def test_selection_keeps_parts_equal(case, policy):
    run = measured(case)
    plan = s3d.select(run.spectrum, run.graph, policy, 2, c=3.0)
    result = s3d.split(run.model, run.graph, plan, epsilon=0)
    torch.testing.assert_close(result.model(case.inputs()), run.model(case.inputs()), rtol=0, atol=1e-10)
    if isinstance(policy, s3d.Knapsack):
        assert plan.macs <= 1.8 * s3d.count(run.graph).macs
    else:
        assert plan.neurons <= 0.4 * sum(run.graph.widths.values())


@wide_cases
def test_a_network_grows_ten_times(case):
    model, inputs, targets = copy.deepcopy(measured(case).model), case.inputs(), case.targets()
    graph = s3d.trace(model, inputs)
    for _ in range(10):
        op = s3d.SplittingOperator(model, graph, [(inputs, targets)], case.loss_fn)
        plan = s3d.select(s3d.spectrum(op), graph, s3d.TopFraction(0.3), 2, c=1.5)
        assert plan.neurons
        still = s3d.split(model, graph, plan, epsilon=0).model
        torch.testing.assert_close(still(inputs), model(inputs), rtol=0, atol=1e-9)
        result = s3d.split(model, graph, plan, epsilon=0.05)
        model, graph = result.model, result.graph
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        case.loss_fn(model(inputs), targets).backward()
        optimizer.step()
        assert result.widths == graph.widths == s3d.trace(model, inputs).widths


def test_an_unbalanced_plan_is_refused():
    run = measured(next(case for case in WIDE if case.name == "grouped"))
    plan = s3d.plan_from_copies(run.graph, {"grouped": torch.tensor([2, 1, 1, 1, 1, 1])})
    with pytest.raises(s3d.ModelError, match=r"plan: expected 2 equal parts where grouped\.weight cuts .* got 3 to 4"):
        s3d.split(run.model, run.graph, plan)
