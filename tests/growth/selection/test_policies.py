import dataclasses
import json
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import nni_s3d as s3d
from nni_s3d import ConfigError, Knapsack, ModelError, Spectrum, TopFraction, TopK
from nni_s3d.growth.graph.cost import COSTS, total_cost
from nni_s3d.growth.graph.theta import theta_norms
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.models import mobilenet_v1_small
from tests import reference
from tests.cases import BY_NAME, all_cases, measured, smooth_cases

C = 1.3


def network(*widths: int) -> s3d.ChannelGraph:
    """Return the graph of an MLP with 4 inputs, 3 outputs and these hidden widths."""
    sizes = (4, *widths, 3)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())]
    return s3d.trace(nn.Sequential(*layers[:-1]), torch.zeros(2, 4))


def spectrum_of(graph: s3d.ChannelGraph, ends: list[tuple[float, float]]) -> dict[str, Spectrum]:
    """Return a spectrum with these eigenvalues (lambda_min, lambda_max) for all splittable neurons in their order."""
    found, values = {}, iter(ends)
    for group in graph.splittable_groups:
        low, high = torch.tensor([next(values) for _ in range(group.width)], dtype=torch.float64).T
        d = sum(graph.shapes[p][1:].numel() for layer in group.producers for p in layer.parameters)
        v_min, v_max = (torch.eye(d, dtype=torch.float64)[i].expand(group.width, d) for i in (0, -1))
        zero = torch.zeros(group.width, dtype=torch.float64)
        found[group.name] = Spectrum(low, v_min, high, v_max, zero, zero, zero == 0, 1)
    return found


def random_ends(n: int, seed: int) -> list[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    return [tuple(sorted(rng.standard_normal(2))) for _ in range(n)]


def gains_of(ends: list[tuple[float, float]], copies: tuple[int, ...] = (2, 3, 4)) -> list[list[float]]:
    """Return, for every neuron, the gain with 1, 2, ... copies."""
    low, high = torch.tensor(ends, dtype=torch.float64).T
    rows = [s3d.gain(low, high, m, C).tolist() if m > 1 and m in copies else [0.0] * len(ends) for m in (1, 2, 3, 4)]
    return [list(row) for row in zip(*rows[: max(copies)], strict=True)]


def chosen(plan: GrowthPlan) -> list[int]:
    return torch.cat(list(plan.copies.values())).tolist()


# -- the largest gains -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("relaxed", [False, True])
def test_ties_in_the_knapsack_are_broken_the_same_way_every_time(relaxed):
    plans = []
    for _ in range(3):
        graph = network(3, 3)
        found = spectrum_of(graph, [(-1.0, 0.5)] * 6)
        plans.append(chosen(s3d.select(found, graph, Knapsack(growth=0.4, relaxed=relaxed), {2, 3, 4}, c=C)))
    assert plans[0] == plans[1] == plans[2]
    assert max(plans[0]) > 1


# -- limits of the widths ----------------------------------------------------------------------------------------


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


# -- one number of copies, or several ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [TopK(2), TopFraction(0.5)])
def test_mixed_copies_need_the_knapsack(policy):
    graph = network(4)
    name = type(policy).__name__
    with pytest.raises(ConfigError, match=f"copies: {name[:3]}.* expects one of 2, 3 and 4, got .*needs Knapsack"):
        s3d.select(spectrum_of(graph, random_ends(4, 0)), graph, policy, {2, 3}, c=C)


def test_the_choice_of_one_or_two_is_no_mixed_choice():
    graph = network(4)
    assert s3d.select(spectrum_of(graph, random_ends(4, 0)), graph, TopK(2), {1, 2}, c=C).neurons == 2


# -- the knapsack ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("seed", range(4))
def test_the_relaxation_is_within_one_neuron_of_its_bound(seed):
    n, ends = 40, random_ends(40, seed)
    graph, gains = network(n), np.array(gains_of(ends))
    for room in (7, 30):
        plan = s3d.select(spectrum_of(graph, ends), graph, Knapsack(n + room, "neurons", relaxed=True), {2, 3, 4}, c=C)
        bound = linprog(  # Appendix C.1
            gains.ravel(),
            A_ub=np.tile([1, 2, 3, 4], n)[None],
            b_ub=[n + room],
            A_eq=np.kron(np.eye(n), np.ones(4)),
            b_eq=np.ones(n),
        ).fun
        assert bound - 1e-9 <= plan.gain <= bound - gains.min() + 1e-9
        assert plan.widths["0"] <= n + room


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


# -- plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("copies", "c", "triplet"), [(2, 5.0, "optimal"), (3, 1.3, "paper"), (4, 1.3, "optimal")])
@all_cases
def test_a_plan_keeps_the_constraints_for_every_neuron(case, copies, c, triplet):
    run = measured(case)
    plan = s3d.select(run.spectrum, run.graph, TopFraction(1.0), copies, c=c, triplet=triplet)
    gain = 0.0
    for name, number in plan.copies.items():
        S = run.op.dense(name)
        places = iter(zip(plan.weights[name], plan.displacements[name], strict=True))
        for i, m in enumerate(number.tolist()):
            w, delta = (torch.stack(x) for x in zip(*(next(places) for _ in range(m)), strict=True))
            assert w.sum().item() == pytest.approx(1)
            assert w.abs().sum() <= c + 1e-12
            assert (w @ delta).abs().max() < 1e-12
            assert delta.norm(dim=1).max() <= 1 + 1e-9
            gain += float(torch.einsum("j,ja,ab,jb->", w, delta, S[i], delta))
            assert m > 1 or not delta.any()
    assert plan.gain == pytest.approx(gain, rel=1e-6)
    assert plan.gain < 0


def test_a_plan_covers_all_splittable_groups_in_their_order():
    run = measured(BY_NAME["separable-silu"])
    plan = s3d.plan_from_copies(run.graph, {"12": torch.tensor([2, 1, 4])})
    assert list(plan.copies) == ["0", "6", "12"]
    assert plan.widths == {"0": 3, "6": 4, "12": 7}
    assert plan.copies["0"].tolist() == [1, 1, 1]
    assert plan.neurons == 2
    assert plan.gain == 0
    assert not plan.displacements


def test_without_a_spectrum_the_weights_are_those_of_the_schemes():
    graph = network(4)
    plan = s3d.plan_from_copies(graph, {"0": torch.tensor([2, 1, 3, 4])}, c=1.4)
    expected = [0.5, 0.5, 1.0, 0.6, 0.6, -0.2, 0.6, 0.6, -0.1, -0.1]
    torch.testing.assert_close(plan.weights["0"], torch.tensor(expected, dtype=torch.float64))


def test_a_spectrum_of_some_groups_moves_only_them():
    run = measured(BY_NAME["mlp-tanh"])
    copies = {"0": torch.full((5,), 2), "2": torch.full((4,), 2)}
    plan = s3d.plan_from_copies(run.graph, copies, {"2": run.spectrum["2"]})
    assert list(plan.displacements) == ["2"]
    assert plan.gain == pytest.approx(s3d.plan_from_copies(run.graph, {"2": copies["2"]}, run.spectrum).gain)


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


@pytest.mark.parametrize(
    ("copies", "error", "match"),
    [
        ({"9": [2]}, s3d.ModelError, "channel group '9': expected one of 0, 2, 4"),
        ({"4": [2, 1, 1]}, s3d.ModelError, "4: expected a splittable group, but it is an output of the network"),
        ({"0": [2, 2]}, s3d.ModelError, r"0: expected copies of shape \(5,\), got \(2,\)"),
        ({"0": [2, 1, 5, 1, 1]}, ConfigError, "0: expected 1, 2, 3 or 4 copies of every neuron, got 5"),
        (None, ConfigError, "copies: expected a mapping {group: copies of every neuron}, got None"),
        ([2, 1], ConfigError, r"copies: expected a mapping .*, got \[2, 1\]"),
        ({"0": None}, ConfigError, "0: expected copies of every neuron, got None"),
        ({"0": "abc"}, ConfigError, "0: expected copies of every neuron, got 'abc'"),
        ({"0": 1e30}, s3d.ModelError, r"0: expected copies of shape \(5,\), got \(\)"),
        ({"0": [True] * 5}, ConfigError, "0: expected 1, 2, 3 or 4 copies of every neuron, got True"),
        ({"0": [2, 1, 0, 1, 1]}, ConfigError, "0: expected 1, 2, 3 or 4 copies of every neuron, got 0"),
    ],
)
def test_wrong_copies_are_refused(copies, error, match):
    with pytest.raises(error, match=match):
        s3d.plan_from_copies(measured(BY_NAME["mlp-tanh"]).graph, copies)


@pytest.mark.parametrize("other", ["2", "narrow"])
def test_a_spectrum_of_another_shape_is_refused(other):
    run = measured(BY_NAME["mlp-tanh"])
    wrong = {"2": run.spectrum["2"], "narrow": spectrum_of(network(4), random_ends(4, 0))["0"]}[other]
    with pytest.raises(s3d.ModelError, match=r"0: expected eigenvectors of shape \(5, 5\), got \(4, [56]\)"):
        s3d.plan_from_copies(run.graph, {"0": [2, 1, 1, 1, 1]}, {"0": wrong})


def test_a_plan_never_moves_along_what_is_no_number():
    run = measured(BY_NAME["mlp-tanh"])
    broken = dataclasses.replace(run.spectrum["0"], v_max=run.spectrum["0"].v_max * float("nan"))
    with pytest.raises(s3d.ModelError, match="0: expected finite eigenvectors, got others"):
        s3d.plan_from_copies(run.graph, {"0": [2, 1, 1, 1, 1]}, {"0": broken})


def test_a_plan_with_an_unknown_triplet_is_refused():
    with pytest.raises(ConfigError, match="triplet: expected one of optimal, paper, got 'x'"):
        s3d.plan_from_copies(measured(BY_NAME["mlp-tanh"]).graph, {}, triplet="x")


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


@pytest.mark.parametrize("c", [0.5, float("nan")])
def test_a_plan_with_c_below_one_is_refused(c):
    with pytest.raises(ConfigError, match="c: expected a number >= 1"):
        s3d.plan_from_copies(measured(BY_NAME["mlp-tanh"]).graph, {}, c=c)


def test_the_solver_prints_nothing(capfd):
    graph = s3d.trace(
        mobilenet_v1_small(dict.fromkeys(("conv0", *(f"pw{i}" for i in range(1, 6))), 12), 10, 1, 8),
        torch.randn(1, 1, 8, 8),
    )
    gains = torch.rand(72, generator=torch.Generator().manual_seed(19)) ** 3  # HiGHS 1.12 has something to say here
    assert s3d.select(spectrum_of(graph, [(-g, 0.0) for g in gains.tolist()]), graph, Knapsack(growth=0.6)).neurons
    print("but others may")
    assert capfd.readouterr().out == "but others may\n"


@smooth_cases
def test_a_relative_plan_is_carried_out_in_its_unit(case):
    run, epsilon = measured(case), 1e-3
    units = theta_norms(run.graph.splittable_groups, dict(run.model.named_parameters()))
    plan = s3d.select(run.spectrum, run.graph, TopFraction(1.0), 4, c=C, theta_norms=units)
    absolute = s3d.select(run.spectrum, run.graph, TopFraction(1.0), 4, c=C)
    assert (plan.relative, absolute.relative) == (True, False)
    assert plan.gain != pytest.approx(absolute.gain, rel=5e-3)
    (x, y), grown = case.batch(), s3d.split(run.model, run.graph, plan, epsilon).model
    losses = [case.loss_fn(model(x), y).item() for model in (run.model, grown)]
    assert losses[1] - losses[0] == pytest.approx(epsilon**2 / 2 * plan.gain, rel=2e-3)


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


def test_plans_can_be_compared():
    graph = network(4)
    first, second = (s3d.plan_from_copies(graph, {"0": [2, 1, 1, 1]}) for _ in range(2))
    assert first == first
    assert first != second
    assert len({first, second}) == 2


@pytest.mark.parametrize(
    ("norms", "match"),
    [
        ({}, r"theta_norms: 0: expected shape \(2,\), got none"),
        ({"0": torch.ones(3)}, r"theta_norms: 0: expected shape \(2,\), got \(3,\)"),
    ],
)
def test_a_relative_plan_needs_the_norm_of_every_neuron(norms, match):
    graph = network(2)
    spectrum = spectrum_of(graph, [(-1.0, 1.0)] * 2)
    with pytest.raises(ModelError, match=match):
        s3d.select(spectrum, graph, TopK(1), theta_norms=norms)
    with pytest.raises(ModelError, match=match):
        s3d.plan_from_copies(graph, {"0": [2, 1]}, spectrum, theta_norms=norms)
