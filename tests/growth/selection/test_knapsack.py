"""The knapsack at fixed prices against the linear relaxation and brute force."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import nni_s3d as s3d
from nni_s3d import Knapsack
from nni_s3d.growth.selection.candidates import Candidates
from nni_s3d.growth.selection.knapsack import (
    EXACT_CANDIDATES,
    integer_program,
    rounded_relaxation,
    solve,
    solvers,
)
from nni_s3d.models import mobilenet_v1_small
from tests.cases import measured
from tests.growth.selection.made_up import C, gains_of, network, random_ends, spectrum_of
from tests.wide import WIDE


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


def test_the_solver_prints_nothing(capfd):
    graph = s3d.trace(
        mobilenet_v1_small(dict.fromkeys(("conv0", *(f"pw{i}" for i in range(1, 6))), 12), 10, 1, 8),
        torch.randn(1, 1, 8, 8),
    )
    gains = torch.rand(72, generator=torch.Generator().manual_seed(19)) ** 3  # HiGHS 1.12 has something to say here
    assert s3d.select(spectrum_of(graph, [(-g, 0.0) for g in gains.tolist()]), graph, Knapsack(growth=0.6)).neurons
    print("but others may")
    assert capfd.readouterr().out == "but others may\n"


def random_candidates(seed: int, cap: float = math.inf) -> tuple[Candidates, torch.Tensor]:
    """Return six neurons in two groups, with random gains, and their random prices."""
    graph, generator = network(3, 3), torch.Generator().manual_seed(seed)
    gains = -torch.rand(3, graph.num_channels, dtype=torch.float64, generator=generator).cumsum(0)
    gains[:, 6:] = 0  # the outputs of the network
    prices = 1 + torch.rand(graph.num_channels, dtype=torch.float64, generator=generator)
    return Candidates(graph, (2, 3, 4), gains, {"0": math.inf, "2": cap}), prices


def brute_force(candidates: Candidates, prices: torch.Tensor, budget: float) -> float:
    best = 0.0
    for choice in product((1, 2, 3, 4), repeat=6):
        copies = torch.tensor([*choice, 1, 1, 1])
        spent = float(((copies - 1) * prices).sum())
        if spent <= budget and int((copies[3:6] - 1).sum()) <= candidates.capacity["2"]:
            best = min(best, candidates.gain(copies))
    return best


@pytest.mark.parametrize("cap", [math.inf, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_integer_program_is_optimal(seed, cap):
    candidates, prices = random_candidates(seed, cap)
    for budget in (1.5, 6.0):
        copies = integer_program(candidates, prices, budget)
        assert candidates.gain(copies) == pytest.approx(brute_force(candidates, prices, budget), rel=2e-4)
        assert float(((copies - 1) * prices).sum()) <= budget
        assert int((copies[3:6] - 1).sum()) <= cap


@pytest.mark.parametrize("cap", [math.inf, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_rounded_relaxation_keeps_budget_and_caps(seed, cap):
    candidates, prices = random_candidates(seed, cap)
    for budget in (1.5, 6.0, 100.0):
        copies = rounded_relaxation(candidates, prices, budget)
        assert float(((copies - 1) * prices).sum()) <= budget
        assert int((copies[3:6] - 1).sum()) <= cap
        if cap == math.inf:  # within the gain of one neuron of the best
            assert candidates.gain(copies) <= brute_force(candidates, prices, budget) - float(candidates.gains.min())


def test_what_is_solved_when():
    few, prices = random_candidates(0)
    assert solvers(few) == [rounded_relaxation, integer_program]
    assert solvers(few, relaxed=True) == [rounded_relaxation]
    assert torch.equal(solve(few, prices, 6.0), integer_program(few, prices, 6.0))
    graph = network(EXACT_CANDIDATES + 1)
    gains = torch.zeros(1, graph.num_channels, dtype=torch.float64)
    for gaining, expected in (
        (EXACT_CANDIDATES, [rounded_relaxation, integer_program]),
        (EXACT_CANDIDATES + 1, [rounded_relaxation]),
    ):
        gains[0, :gaining] = -1
        assert solvers(Candidates(graph, (2,), gains, {"0": math.inf})) == expected


@pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)
def test_equal_parts_always_need_the_integer_program(case):
    graph = measured(case).graph
    gains = -torch.ones(1, graph.num_channels, dtype=torch.float64)
    candidates = Candidates(graph, (2,), gains, dict.fromkeys(graph.widths, math.inf))
    assert (solvers(candidates, relaxed=True) == [integer_program]) == bool(graph.equal_parts)


def test_relaxed_asks_no_integer_program(monkeypatch):
    """`relaxed` was ignored above 600 candidates, and solved by HiGHS below."""
    monkeypatch.setattr("nni_s3d.growth.selection.knapsack.milp", pytest.fail)
    graph, ends = network(6), random_ends(6, 0)
    assert s3d.select(spectrum_of(graph, ends), graph, Knapsack(growth=0.5, relaxed=True), {2, 3, 4}, c=C).neurons
