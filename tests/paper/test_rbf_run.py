import itertools
from types import SimpleNamespace

import pytest
import torch

from paper.rbf_run import RESCUED, Rescue, run


def chosen(losses, neurons=15, copies=3):
    policy = Rescue(copies, neurons)
    policy.losses = losses
    gains = torch.tensor([[-1.0, -3.0, -2.0, 0.0, 0.0], [-4.0, -5.0, -6.0, 0.0, 0.0]])  # the last one is the output
    graph = SimpleNamespace(num_channels=5, widths={"neurons": 4})
    return policy.choose(SimpleNamespace(choices=(2, copies), gains=gains, graph=graph)).tolist()


def test_a_phase_in_vain_is_followed_by_more_copies():
    assert chosen([1.0]) == [1, 2, 1, 1, 1]
    assert chosen([1.0, 0.98]) == [1, 2, 1, 1, 1]
    assert chosen([1.0, 0.995]) == [1, 1, 3, 1, 1]
    assert chosen([1.0, 0.995], neurons=5) == [1, 2, 1, 1, 1]  # there is room for one more
    assert chosen([1.0, 0.995], neurons=6, copies=4) == [1, 2, 1, 1, 1]  # for two more
    assert chosen([1.0, 0.5], neurons=4) == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("iterations", [1, 300])  # so few that every phase is in vain, and enough
def test_a_rescued_run_ends_with_as_many_neurons(iterations):
    steps = run(RESCUED, 6, 6, iterations)
    assert steps[-1].widths["neurons"] == 6
    assert (len(steps) < 6) == any(
        later.trained > 0.99 * step.trained for step, later in itertools.pairwise(steps[:-1])
    )
