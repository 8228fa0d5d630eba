"""Policies against brute force: the largest gains, or the best gain under a budget."""

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import ConfigError, Knapsack, TopFraction, TopK
from nni_s3d.growth.graph.cost import COSTS, total_cost
from nni_s3d.growth.selection.policies import budget_of
from tests import reference
from tests.growth.selection.made_up import C, chosen, gains_of, network, random_ends, spectrum_of


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_takes_the_most_negative_gains(k, copies):
    graph, ends = network(4, 3), random_ends(7, seed=k)
    plan = s3d.select(spectrum_of(graph, ends), graph, TopK(k), copies, c=C)
    gains = [row[copies - 1] for row in gains_of(ends)]
    best = sorted(range(7), key=lambda i: gains[i])[:k]
    assert chosen(plan) == [copies if i in best else 1 for i in range(7)]
    assert plan.gain == pytest.approx(sum(gains[i] for i in best))
    assert plan.neurons == k


def test_top_k_takes_only_gains_beyond_eta():
    graph, ends = network(4), [(-1.0, 0.0), (-2.0, 0.0), (-3.0, 0.0), (-0.5, 0.0)]
    found = spectrum_of(graph, ends)
    assert chosen(s3d.select(found, graph, TopK(4, eta=2.0), 2, c=C)) == [1, 2, 2, 1]
    assert chosen(s3d.select(found, graph, TopK(1, eta=2.0), 2, c=C)) == [1, 1, 2, 1]
    assert s3d.select(found, graph, TopK(4, eta=3.1), 2, c=C).neurons == 0


def test_dead_and_stable_neurons_are_never_split():
    graph, ends = network(4), [(0.0, 0.0), (1.0, 2.0), (-1.0, 2.0), (0.0, 0.0)]
    found = spectrum_of(graph, ends)
    for policy in (TopK(4), TopFraction(1.0), Knapsack(growth=10.0)):
        assert chosen(s3d.select(found, graph, policy, 2, c=1)) == [1, 1, 2, 1]
        assert chosen(s3d.select(found, graph, policy, 2, c=C)) == [1, 2, 2, 1]


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.1, 1), (0.3, 3), (0.35, 3), (0.7, 7), (1.0, 10)])
def test_top_fraction_rounds_down_but_takes_one(fraction, expected):
    graph = network(6, 4)
    found = spectrum_of(graph, [(-1.0 - i, 0.0) for i in range(10)])
    plan = s3d.select(found, graph, TopFraction(fraction), 2, c=C)
    assert chosen(plan) == [1] * (10 - expected) + [2] * expected


def test_ties_go_to_the_earlier_neuron():
    graph = network(30, 30)
    found = spectrum_of(graph, [(-1.0, 0.0)] * 60)
    assert chosen(s3d.select(found, graph, TopK(35), 2, c=C)) == [2] * 35 + [1] * 25
    assert chosen(s3d.select(found, graph, TopFraction(0.2), 2, c=C)) == [2] * 12 + [1] * 48
    assert chosen(s3d.select(found, graph, TopK(60), 2, c=C, max_widths={"0": 40})) == [2] * 10 + [1] * 20 + [2] * 30


@pytest.mark.parametrize("relaxed", [False, True])
def test_ties_in_the_knapsack_are_broken_the_same_way_every_time(relaxed):
    plans = []
    for _ in range(3):
        graph = network(3, 3)
        found = spectrum_of(graph, [(-1.0, 0.5)] * 6)
        plans.append(chosen(s3d.select(found, graph, Knapsack(growth=0.4, relaxed=relaxed), {2, 3, 4}, c=C)))
    assert plans[0] == plans[1] == plans[2]
    assert max(plans[0]) > 1


@pytest.mark.parametrize(("copies", "room", "split"), [(2, 2, 2), (3, 2, 1), (3, 5, 2), (4, 2, 0), (4, 3, 1)])
def test_a_group_takes_its_best_neurons_as_far_as_there_is_room(copies, room, split):
    graph = network(4, 3)
    ends = [(-1.0, 0.0), (-4.0, 0.0), (-2.0, 0.0), (-3.0, 0.0), *[(-0.5, 0.0)] * 3]
    plan = s3d.select(spectrum_of(graph, ends), graph, TopFraction(1.0), copies, c=C, max_widths={"0": 4 + room})
    expected = [copies if i in (1, 3, 2, 0)[:split] else 1 for i in range(4)]
    assert chosen(plan) == expected + [copies] * 3


def test_top_k_goes_on_to_other_groups_where_there_is_no_room():
    graph = network(3, 3)
    found = spectrum_of(graph, [(-3.0, 0.0)] * 3 + [(-1.0, 0.0)] * 3)
    assert chosen(s3d.select(found, graph, TopK(3), 2, c=C, max_widths={"0": 4})) == [2, 1, 1, 2, 2, 1]
    assert chosen(s3d.select(found, graph, TopK(3), 2, c=C, max_widths={"0": 2})) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("policy", [TopK(2), TopFraction(0.5)])
def test_mixed_copies_need_the_knapsack(policy):
    graph = network(4)
    name = type(policy).__name__
    with pytest.raises(ConfigError, match=f"copies: {name[:3]}.* expects one of 2, 3 and 4, got .*needs Knapsack"):
        s3d.select(spectrum_of(graph, random_ends(4, 0)), graph, policy, {2, 3}, c=C)


def test_the_choice_of_one_or_two_is_no_mixed_choice():
    graph = network(4)
    assert s3d.select(spectrum_of(graph, random_ends(4, 0)), graph, TopK(2), {1, 2}, c=C).neurons == 2


@pytest.mark.parametrize("cap", [4, 5, 7, 12])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_knapsack_is_optimal_within_a_limit(seed, cap):
    graph, ends = network(3, 3), random_ends(6, seed)
    for budget in (8, 11, 18):
        plan = s3d.select(
            spectrum_of(graph, ends), graph, Knapsack(budget, "neurons"), {2, 3, 4}, c=C, max_widths={"2": cap}
        )
        best, _ = reference.best_choice(gains_of(ends), lambda m: sum(m) if sum(m[3:]) <= cap else float("inf"), budget)
        assert plan.gain == pytest.approx(best, rel=2e-4)
        assert plan.widths["2"] <= cap
        assert sum(plan.widths.values()) <= budget


@pytest.mark.parametrize("copies", [(2,), (2, 3), (1, 2, 3, 4)])
@pytest.mark.parametrize("cost", ["params", "macs", "neurons"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_knapsack_is_optimal_where_costs_are_additive(seed, cost, copies):
    graph, ends = network(6), random_ends(6, seed)
    now, price = total_cost(graph, cost), {"params": 4 + 1 + 3, "macs": 4 + 3, "neurons": 1}[cost]
    gains = gains_of(ends, copies)
    for growth in (0.2, 0.5, 1.3):
        budget = now * (1 + growth)
        plan = s3d.select(spectrum_of(graph, ends), graph, Knapsack(budget, cost), set(copies), c=C)
        best, _ = reference.best_choice(gains, lambda m: now + price * (sum(m) - 6), budget)
        assert plan.gain == pytest.approx(best, rel=2e-4)
        assert now + price * (plan.widths["0"] - 6) <= budget


@pytest.mark.parametrize("seed", range(4))
def test_the_knapsack_is_nearly_optimal_where_costs_interact(seed):
    graph, ends = network(3, 3), random_ends(6, seed)
    gains = gains_of(ends)

    def params(copies: tuple[int, ...]) -> int:
        a, b = sum(copies[:3]), sum(copies[3:])
        return 4 * a + a + a * b + b + 3 * b + 3

    assert params((1,) * 6) == s3d.count(graph).params
    for growth in (0.4, 1.5):
        budget = params((1,) * 6) * (1 + growth)
        plan = s3d.select(spectrum_of(graph, ends), graph, Knapsack(growth=growth, cost="params"), {2, 3, 4}, c=C)
        best, _ = reference.best_choice(gains, params, budget)
        assert plan.params == params(tuple(chosen(plan))) <= budget
        assert best * (1 + 1e-9) <= plan.gain <= 0.85 * best


def test_a_large_budget_gives_every_neuron_its_best_number_of_copies():
    graph, ends = network(4, 3), random_ends(7, 3)
    plan = s3d.select(spectrum_of(graph, ends), graph, Knapsack(1e9, "params"), {2, 3, 4}, c=C)
    assert plan.gain == pytest.approx(sum(min(row) for row in gains_of(ends)))


def test_a_budget_without_room_splits_nothing():
    graph = network(4, 3)
    for cost in COSTS:
        plan = s3d.select(
            spectrum_of(graph, random_ends(7, 0)), graph, Knapsack(total_cost(graph, cost), cost), {2, 3, 4}, c=C
        )
        assert plan.neurons == 0
        assert plan.gain == 0


def test_a_budget_below_the_cost_of_the_network_is_refused():
    graph = network(4, 3)
    now = s3d.count(graph).macs
    with pytest.raises(ConfigError, match=f"budget: expected at least {now} macs, what the network costs, got 36"):
        s3d.select(spectrum_of(graph, random_ends(7, 0)), graph, Knapsack(36), 2, c=C)


def test_a_policy_of_a_users_own_chooses():
    class EveryOther:
        """Asks for the candidates' graph, gains and capacity."""

        def choose(self, candidates):
            assert candidates.gains.shape == (1, candidates.graph.num_channels)
            copies = torch.ones(candidates.graph.num_channels, dtype=torch.int64)
            copies[0:4:2] = candidates.choices[0]
            return copies

    graph = network(4)
    assert chosen(s3d.select(spectrum_of(graph, random_ends(4, 0)), graph, EveryOther(), 3)) == [3, 1, 3, 1]


def test_budgets():
    graph = network(4)
    now = s3d.count(graph).macs
    assert budget_of(Knapsack(now + 9), graph) == now + 9
    assert budget_of(Knapsack(growth=0.5), graph) == 1.5 * now
    assert budget_of(Knapsack(growth=0.5, cost="neurons"), graph) == 6
    with pytest.raises(ConfigError, match=f"budget: expected at least {now} macs, .*, got {now - 1}"):
        budget_of(Knapsack(now - 1), graph)
    with pytest.raises(
        ConfigError, match=r"budget: expected that of one growth step, Knapsack.at\(step\), got \[1, 2\]"
    ):
        budget_of(Knapsack([1, 2]), graph)


@pytest.mark.parametrize("choice", [None, [2, 1, 1, 1], torch.ones(3), torch.full((7,), 3), torch.zeros(7)])
def test_a_choice_that_is_none_is_refused(choice):
    class Own:
        def choose(self, candidates):
            return choice

    graph = network(4)
    with pytest.raises(ConfigError, match=r"policy: expected copies of shape \(7,\), each one of \(1, 2\), got"):
        s3d.select(spectrum_of(graph, random_ends(4, 0)), graph, Own())
