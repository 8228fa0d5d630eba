"""From a spectrum to a plan: limits hold, and what is no spectrum is refused."""

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import ConfigError, Knapsack, ModelError, TopFraction, TopK
from tests.cases import all_cases, measured
from tests.growth.selection.made_up import C, averaged_network, network, spectrum_of


@pytest.mark.parametrize(
    "policy", [TopK(3), TopFraction(1.0), Knapsack(growth=10.0), Knapsack(growth=9.0, relaxed=True)]
)
def test_a_spectrum_that_is_no_number_is_refused(policy):
    graph, nan = network(4), float("nan")
    found = spectrum_of(graph, [(-1.0, 1.0), (nan, nan), (nan, nan), (-2.0, 1.0)])
    with pytest.raises(ModelError, match="spectrum: expected finite numbers in 0; has training diverged"):
        s3d.select(found, graph, policy, 2, c=C)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"policy": None}, ConfigError, r"policy: expected a policy such as TopFraction\(0.35\), got None"),
        ({"policy": "top_k"}, ConfigError, "policy: expected a policy such as .*, got 'top_k'"),
        ({"policy": TopFraction}, ConfigError, "policy: expected a policy such as .*, got <class"),
        ({"max_widths": [9]}, ConfigError, r"max_widths: expected a mapping {group: width}, got \[9\]"),
        ({"max_widths": {"7": 9}}, ModelError, "channel group '7': expected one of 0, 2"),
        ({"max_widths": {"0": -1}}, ConfigError, "max_widths: 0: expected a number >= 1, got -1"),
        ({"max_widths": {"0": float("nan")}}, ConfigError, "max_widths: 0: expected a number >= 1, got nan"),
    ],
)
def test_wrong_arguments_of_select_are_refused(settings, error, match):
    graph = network(2)
    with pytest.raises(error, match=match):
        s3d.select(spectrum_of(graph, [(-1.0, 1.0)] * 2), graph, **{"policy": TopK(1), **settings})


def test_a_spectrum_without_one_of_the_groups_is_refused():
    graph = network(2, 3)
    found = spectrum_of(graph, [(-1.0, 1.0)] * 5)
    del found["2"]
    with pytest.raises(ModelError, match="spectrum: expected one of every splittable group, got none of 2"):
        s3d.select(found, graph, TopK(1), 2, c=C)


ENDS = [(-1.0, 1.0), (1.0, 2.0), (-3.0, 1.0), (-0.1, 1.0), (-0.1, 9.0), (-0.2, 1.0)]


@pytest.mark.parametrize(
    ("policy", "copies", "expected"),
    [
        (TopK(2), 2, [1, 1, 1, 1, 2, 2]),  # three neurons together are one more
        (TopK(4), 2, [2, 2, 2, 1, 2, 1]),
        (TopFraction(0.5), 2, [2, 2, 2, 1, 1, 1]),
        (TopFraction(1.0), 4, [4, 4, 4, 4, 4, 4]),
        (Knapsack(growth=9.0), 2, [2, 2, 2, 2, 2, 2]),
        (Knapsack(growth=9.0, relaxed=True), 2, [2, 2, 2, 2, 2, 2]),
        (Knapsack(budget=8, cost="neurons"), 2, [1, 1, 1, 1, 2, 2]),
        (Knapsack(budget=9, cost="neurons"), {2, 3, 4}, [2, 2, 2, 1, 1, 1]),
    ],
)
def test_averaged_channels_are_one_choice(policy, copies, expected):
    graph = averaged_network(4, 2, averages=[[0, 1, 2]])
    plan = s3d.select(spectrum_of(graph, ENDS), graph, policy, copies, c=C)
    assert torch.cat(list(plan.copies.values())).tolist() == expected
    first = plan.weights["0"][: 3 * expected[0]]
    assert first.tolist() == [1 / expected[0]] * len(first)
    moves = plan.displacements["0"][: 3 * expected[0]].norm(dim=1).reshape(3, -1)
    assert not moves[1].any()  # where the smallest eigenvalue is positive
    if expected[0] == 2:
        assert moves[0].tolist() == moves[2].tolist() == [1, 1]


def test_new_neurons_stay_away_from_averaged_channels():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 5), torch.nn.Tanh())
    model.append(torch.nn.Linear(5, 2))
    graph = s3d.trace(model, torch.randn(6, 3))
    found = s3d.new_neurons(model, graph)
    plan = s3d.select(found, graph, TopFraction(1.0))
    assert [copies.tolist() for copies in plan.copies.values()] == [[1] * 4, [2] * 5]
    said = "new neurons: expected none among the channels that 1 averages, where copies must have equal weights"
    with pytest.raises(ModelError, match=said):
        s3d.plan_from_copies(graph, {"0": torch.full((4,), 2)}, found)
    plan = s3d.select(s3d.random_splits(model, graph), graph, TopK(7))
    assert plan.copies["0"].tolist() in ([1] * 4, [2] * 4)
    x = torch.randn(6, 3)
    torch.testing.assert_close(s3d.split(model, graph, plan, epsilon=0).model(x), model(x))


@pytest.mark.parametrize(
    ("policy", "copies"),
    [
        (TopFraction(1.0), 2),
        (TopK(5), 4),
        (Knapsack(growth=3.0), {2, 3, 4}),
        (Knapsack(growth=3.0, relaxed=True), {2, 3, 4}),
    ],
    ids=["fraction", "k", "knapsack", "relaxed"],
)
@all_cases
def test_no_width_exceeds_its_limit(case, policy, copies):
    run = measured(case)
    for extra in (0, 1, 3):
        limits = {name: width + extra for name, width in run.graph.widths.items()}
        plan = s3d.select(run.spectrum, run.graph, policy, copies, c=C, max_widths=limits)
        assert all(plan.widths[name] <= limits[name] for name in limits)
        assert (plan.neurons > 0) == (extra > 0 if copies != 4 else extra == 3)
