"""The knapsack at fixed prices against the linear relaxation and brute force."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

import nni_s3d as s3d
from nni_s3d import Knapsack
from nni_s3d.growth.graph.clusters import equations
from nni_s3d.growth.graph.equal_parts import check_equal_parts
from nni_s3d.growth.selection.candidates import Candidates
from nni_s3d.growth.selection.knapsack import EXACT_CANDIDATES, integer_program, rounded_relaxation, solvers
from nni_s3d.models import mobilenet_v1_small
from tests.alone import alone  # noqa: F401
from tests.growth.selection.made_up import C, cut_network, gains_of, network, random_ends, spectrum_of


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


def test_the_solver_prints_nothing(alone, capfd):  # noqa: F811
    graph = s3d.trace(
        mobilenet_v1_small(dict.fromkeys(("conv0", *(f"pw{i}" for i in range(1, 6))), 12), 10, 1, 8),
        torch.randn(1, 1, 8, 8),
    )
    gains = torch.rand(72, generator=torch.Generator().manual_seed(19)) ** 3  # HiGHS 1.12 has something to say here
    assert s3d.select(spectrum_of(graph, [(-g, 0.0) for g in gains.tolist()]), graph, Knapsack(growth=0.6)).neurons
    print("but others may")
    assert capfd.readouterr().out == "but others may\n"


HALVES = [[[0], [1]], [[3, 4], [3, 5]]]  # of both groups; the halves of the second one share a channel
CUTS = pytest.mark.parametrize("cuts", [[], [[[0, 1], [2, 3]]], HALVES, [[[0, 3], [1, 4], [2, 5]]]])


def random_candidates(seed: int, cap: float = math.inf, cuts=()) -> tuple[Candidates, torch.Tensor]:
    """Return six neurons in two groups, with random gains, and random prices of each group."""
    graph, generator = cut_network(3, 3, cuts=cuts), torch.Generator().manual_seed(seed)
    gains = -torch.rand(3, graph.num_channels, dtype=torch.float64, generator=generator).cumsum(0)
    gains[:, 6:] = 0  # the outputs of the network
    prices = 1 + torch.rand(3, dtype=torch.float64, generator=generator).repeat_interleave(3)
    return Candidates(graph, (2, 3, 4), gains, {"0": math.inf, "2": cap}), prices


def keeps_parts_equal(graph: s3d.ChannelGraph, copies: torch.Tensor) -> bool:
    return not (equations(graph.equal_parts, graph.num_channels) @ (copies - 1).numpy()).any()


def brute_force(candidates: Candidates, prices: torch.Tensor, budget: float) -> float:
    best = 0.0
    for choice in product((1, 2, 3, 4), repeat=6):
        copies = torch.tensor([*choice, 1, 1, 1])
        spent = float(((copies - 1) * prices).sum())
        fits = spent <= budget and int((copies[3:6] - 1).sum()) <= candidates.capacity["2"]
        if fits and keeps_parts_equal(candidates.graph, copies):
            best = min(best, candidates.gain(copies))
    return best


@CUTS
@pytest.mark.parametrize("cap", [math.inf, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_integer_program_is_optimal(seed, cap, cuts):
    candidates, prices = random_candidates(seed, cap, cuts)
    for budget in (1.5, 6.0, 12.0):
        copies = integer_program(candidates, prices, budget)
        # Where parts hold channels of two groups, only some ways to grow are known.
        promised = 1 - 2e-4 if all(c.ratio is not None for c in candidates.clusters.clusters) else 0
        best = brute_force(candidates, prices, budget)
        assert best * (1 + 1e-9) <= candidates.gain(copies) <= promised * best
        assert float(((copies - 1) * prices).sum()) <= budget
        assert int((copies[3:6] - 1).sum()) <= cap
        assert keeps_parts_equal(candidates.graph, copies)


def largest_step(candidates: Candidates, prices: torch.Tensor) -> float:
    """Return how much one step of a neuron or a cluster gains at most."""
    steps = [-np.diff(ladder.gains[ladder.corners]).min() for ladder in candidates.ladders(prices)]
    return max([-float(candidates.gains.min()), *steps])


@CUTS
@pytest.mark.parametrize("cap", [math.inf, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_rounded_relaxation_keeps_budget_caps_and_equal_parts(seed, cap, cuts):
    candidates, prices = random_candidates(seed, cap, cuts)
    for budget in (1.5, 6.0, 100.0):
        copies = rounded_relaxation(candidates, prices, budget)
        assert float(((copies - 1) * prices).sum()) <= budget
        assert int((copies[3:6] - 1).sum()) <= cap
        assert keeps_parts_equal(candidates.graph, copies)
        if cap == math.inf:
            best = brute_force(candidates, prices, budget)
            assert candidates.gain(copies) <= best + largest_step(candidates, prices)


def test_a_step_that_does_not_fit_leaves_room_for_smaller_ones():
    graph = cut_network(4, 2, cuts=[[[0], [1], [2], [3]]])
    gains = torch.tensor([[-9.0, -9.0, -9.0, -9.0, -2.0, -1.0, 0, 0, 0]], dtype=torch.float64)
    candidates = Candidates(graph, (2,), gains, {"0": math.inf, "2": math.inf})
    prices = torch.ones(9, dtype=torch.float64)
    for budget, expected in ((4, [2] * 4 + [1] * 2), (3, [1] * 4 + [2] * 2), (5, [2] * 5 + [1])):
        assert rounded_relaxation(candidates, prices, budget)[:6].tolist() == expected


def blocks(sizes: list[tuple[int, int]]) -> list[list[list[int]]]:
    """Return a cut of each group into so many blocks of so many channels, and the same cut of the groups behind it."""
    cuts, first = [], 0
    for number, size in sizes:
        cuts.append((first + torch.arange(number * size).reshape(number, size)).tolist())
        first += number * size
    return cuts


def neuron_by_neuron(candidates: Candidates, prices: torch.Tensor, budget: float, gap: float) -> float:
    """Return the gain that HiGHS finds with one variable for every neuron and number of copies."""
    choices, n = len(candidates.choices), candidates.graph.num_channels
    added = np.repeat([m - 1 for m in candidates.choices], n)
    each = np.tile(np.eye(n), choices)
    cuts = equations(candidates.graph.equal_parts, n).toarray()
    held = [
        LinearConstraint(each, ub=1),
        LinearConstraint((added * np.tile(prices.numpy(), choices))[None], ub=budget),
        LinearConstraint(np.tile(cuts, choices) * added, 0, 0),
    ]
    room = np.tile((candidates.gains < 0).any(dim=0).numpy(), choices).astype(float)
    options = {"mip_rel_gap": gap, "time_limit": 60}
    solved = milp(
        candidates.gains.numpy().ravel(), constraints=held, bounds=Bounds(0, room), integrality=1, options=options
    )
    return float(solved.mip_dual_bound)


@pytest.mark.parametrize("choices", [(2,), (2, 3, 4)])
@pytest.mark.parametrize("seed", range(2))
def test_clusters_are_as_good_as_an_integer_program_over_all_neurons(seed, choices):
    sizes = [(4, 6), (2, 12), (8, 2)]
    graph, generator = cut_network(24, 24, 16, 8, cuts=blocks(sizes)), torch.Generator().manual_seed(seed)
    gains = -torch.rand(len(choices), graph.num_channels, dtype=torch.float64, generator=generator).cumsum(0)
    gains[:, -3:] = 0
    prices = torch.cat(
        [torch.full((w,), p) for w, p in zip((24, 24, 16, 8, 3), (1.0, 3.0, 2.0, 5.0, 1.0), strict=True)]
    )
    candidates = Candidates(graph, choices, gains, dict.fromkeys(graph.widths, math.inf))
    for budget in (20.0, 60.0):
        bound = neuron_by_neuron(candidates, prices, budget, gap=1e-3)
        step = largest_step(candidates, prices)
        for solver, promised in ((integer_program, bound * (1 - 1.2e-3)), (rounded_relaxation, bound + step)):
            copies = solver(candidates, prices, budget)
            assert float(((copies - 1) * prices).sum()) <= budget
            check_equal_parts(graph, copies)
            assert bound * (1 + 1e-9) <= candidates.gain(copies) <= promised


def test_what_is_solved_when():
    few, prices = random_candidates(0)
    assert solvers(few, prices) == [rounded_relaxation, integer_program]
    assert solvers(few, prices, relaxed=True) == [rounded_relaxation]
    graph = network(EXACT_CANDIDATES + 1)
    prices = torch.ones(graph.num_channels, dtype=torch.float64)
    gains = torch.zeros(1, graph.num_channels, dtype=torch.float64)
    for gaining, expected in (
        (EXACT_CANDIDATES, [rounded_relaxation, integer_program]),
        (EXACT_CANDIDATES + 1, [rounded_relaxation]),
    ):
        gains[0, :gaining] = -1
        assert solvers(Candidates(graph, (2,), gains, {"0": math.inf}), prices) == expected


@pytest.mark.parametrize("cuts", [[], [[[0, 1, 2], [3, 4, 5]]]])
def test_relaxed_asks_no_integer_program(monkeypatch, cuts):
    """`relaxed` was ignored above 600 candidates, and where parts must stay equal."""
    monkeypatch.setattr("nni_s3d.growth.selection.knapsack.milp", pytest.fail)
    graph, ends = cut_network(6, cuts=cuts), random_ends(6, 0)
    assert s3d.select(spectrum_of(graph, ends), graph, Knapsack(growth=0.5, relaxed=True), {2, 3, 4}, c=C).neurons
