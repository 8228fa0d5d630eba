"""The knapsack at fixed prices against the linear relaxation and brute force."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import nni_s3d as s3d
from nni_s3d import Knapsack
from nni_s3d.models import mobilenet_v1_small
from tests.growth.selection.made_up import C, gains_of, network, random_ends, spectrum_of


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
