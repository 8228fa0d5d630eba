"""From a spectrum to a plan: limits hold, and what is no spectrum is refused."""

import pytest

import nni_s3d as s3d
from nni_s3d import ConfigError, Knapsack, ModelError, TopFraction, TopK
from tests.cases import all_cases, measured
from tests.growth.selection.made_up import C, network, spectrum_of


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
