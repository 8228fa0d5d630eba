"""The exact cost holds, and no better neuron fits into what is left."""

from itertools import product

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import Knapsack
from nni_s3d.growth.graph.cost import COSTS, total_cost
from tests.cases import all_cases, measured
from tests.growth.selection.made_up import C, chosen, gains_of, network, random_ends, spectrum_of


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
