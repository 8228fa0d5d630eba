"""The exact cost holds, and no better neuron fits into what is left."""

import math
from itertools import product

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import Knapsack
from nni_s3d.growth.graph.cost import COSTS, CostModel, total_cost
from nni_s3d.growth.graph.equal_parts import check_equal_parts
from nni_s3d.growth.selection.budget import drop_until_affordable, resolve_within_budget, spend_remainder
from nni_s3d.growth.selection.candidates import Candidates
from nni_s3d.growth.selection.knapsack import rounded_relaxation
from tests.cases import all_cases, measured
from tests.growth.selection.made_up import C, chosen, cut_network, gains_of, network, random_ends, spectrum_of
from tests.wide import WIDE


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("relaxed", [False, True])
@all_cases
def test_no_plan_is_over_budget(case, relaxed, cost):
    run = measured(case)
    now = total_cost(run.graph, cost)
    for growth in (0.05, 0.35, 1.7):
        plan = s3d.select(run.spectrum, run.graph, Knapsack(growth=growth, cost=cost, relaxed=relaxed), {2, 3, 4}, c=C)
        spent = {"params": plan.params, "macs": plan.macs, "flops": plan.flops, "neurons": sum(plan.widths.values())}
        assert now <= spent[cost] <= now * (1 + growth)
        assert plan.gain <= 0
        if growth > 1:
            assert plan.neurons > 0


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_of_the_budget_fits_no_better_neuron(seed, relaxed):
    graph, ends = network(5, 4), random_ends(9, seed)
    gains = gains_of(ends)
    for growth in (0.2, 0.6, 1.1):
        policy = Knapsack(growth=growth, cost="params", relaxed=relaxed)
        copies = chosen(s3d.select(spectrum_of(graph, ends), graph, policy, {2, 3, 4}, c=C))
        for i, m in product(range(9), (2, 3, 4)):
            if m > copies[i] and gains[i][m - 1] < gains[i][copies[i] - 1]:
                more = torch.tensor([*copies[:i], m, *copies[i + 1 :], 1, 1, 1])
                assert total_cost(graph, "params", more) > total_cost(graph, "params") * (1 + growth)


def of(graph: s3d.ChannelGraph, gains: list[float], cap: float = math.inf) -> Candidates:
    """Return the candidates of a network with these gains of its neurons in two copies."""
    padded = torch.zeros(1, graph.num_channels, dtype=torch.float64)
    padded[0, : len(gains)] = torch.tensor(gains)
    return Candidates(graph, (2,), padded, dict.fromkeys(graph.widths, cap))


def test_neurons_of_least_gain_per_cost_are_dropped_first():
    graph = network(4)
    candidates, cost = of(graph, [-3.0, -1.0, -4.0, -2.0]), CostModel(graph, "neurons")
    copies = torch.tensor([2, 2, 2, 2, 1, 1, 1])
    for budget, expected in ((8, [2, 2, 2, 2]), (7, [2, 1, 2, 2]), (6, [2, 1, 2, 1]), (4, [1, 1, 1, 1])):
        assert drop_until_affordable(candidates, cost, copies, budget)[:4].tolist() == expected
    assert copies[:4].tolist() == [2, 2, 2, 2]  # what is given is left as it is


def test_what_is_left_goes_to_the_best_neurons():
    graph = network(4)
    candidates, cost = of(graph, [-3.0, -1.0, -4.0, 0.0]), CostModel(graph, "neurons")
    nothing = torch.ones(7, dtype=torch.int64)
    for budget, expected in ((4, [1, 1, 1, 1]), (5, [1, 1, 2, 1]), (6, [2, 1, 2, 1]), (9, [2, 2, 2, 1])):
        assert spend_remainder(candidates, cost, nothing, budget)[:4].tolist() == expected
    capped = of(graph, [-3.0, -1.0, -4.0, 0.0], cap=1.0)
    assert spend_remainder(capped, cost, nothing, 9)[:4].tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize("case", [case for case in WIDE if measured(case).graph.equal_parts], ids=lambda c: c.name)
def test_equal_parts_are_solved_again_for_less(case):
    graph = measured(case).graph
    gains = torch.zeros(1, graph.num_channels, dtype=torch.float64)
    for group in graph.splittable_groups:
        gains[0, group.channels] = -1 - torch.arange(group.width) / 10
    candidates = Candidates(graph, (2,), gains, dict.fromkeys(graph.widths, math.inf))
    cost, copies = CostModel(graph, "macs"), torch.ones(graph.num_channels, dtype=torch.int64)
    for group in graph.splittable_groups:
        copies[group.channels] = 2
    for growth in (0.0, 0.3, 0.9):
        budget = cost.total() * (1 + growth)
        fitting = resolve_within_budget(candidates, cost, copies, cost.marginal(copies), budget, rounded_relaxation)
        assert cost.total(fitting) <= budget
        check_equal_parts(graph, fitting)


def test_what_is_left_goes_to_clusters_too():
    graph = cut_network(4, 2, cuts=[[[0, 1], [2, 3]]])
    candidates, cost = of(graph, [-3.0, -1.0, -4.0, 0.0, -0.5, -0.25]), CostModel(graph, "neurons")
    nothing = torch.ones(9, dtype=torch.int64)
    for budget, expected in ((7, [1, 1, 1, 1, 2, 1]), (8, [2, 1, 2, 1, 1, 1]), (9, [2, 1, 2, 1, 2, 1])):
        assert spend_remainder(candidates, cost, nothing, budget)[:6].tolist() == expected
    capped = of(graph, [-3.0, -1.0, -4.0, 0.0, -0.5, -0.25], cap=1.0)
    assert spend_remainder(capped, cost, nothing, 9)[:6].tolist() == [1, 1, 1, 1, 2, 1]
    already = torch.tensor([2, 1, 2, 1, 1, 1, 1, 1, 1])
    assert spend_remainder(candidates, cost, already, 10)[:6].tolist() == [2, 2, 2, 2, 1, 1]
