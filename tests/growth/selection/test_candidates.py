"""Gains of chosen copies, caps, and the convex hulls of gains over copies against brute force."""

import math
from itertools import pairwise

import pytest
import torch

from nni_s3d.growth.selection.candidates import Candidates
from tests.growth.selection.made_up import network


def candidates(seed: int, choices: tuple[int, ...] = (2, 3, 4), caps: dict[str, float] | None = None) -> Candidates:
    graph = network(4, 3)
    gains = -torch.rand(len(choices), graph.num_channels, generator=torch.Generator().manual_seed(seed)).double()
    gains[:, ::3] = 0  # nothing can be won
    return Candidates(graph, choices, gains, {name: (caps or {}).get(name, math.inf) for name in graph.widths})


def test_gains_of_a_choice():
    among = candidates(0)
    copies = torch.tensor([1, 2, 3, 1, 4, 1, 2, 1, 1, 1])
    expected = [0.0 if m == 1 else among.gains[m - 2, i].item() for i, m in enumerate(copies.tolist())]
    assert among.gain_of_each(copies).tolist() == expected
    assert among.gain(copies) == pytest.approx(sum(expected))


def test_groups_with_a_cap():
    assert candidates(0).capped_groups == []
    assert [group.name for group in candidates(0, caps={"2": 0.0}).capped_groups] == ["2"]


@pytest.mark.parametrize("choices", [(2,), (2, 3), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("seed", range(5))
def test_hulls_are_convex_below_all_gains_and_end_where_no_more_is_won(seed, choices):
    among = candidates(seed, choices)
    steps = among.gain_hulls
    for channel in range(among.graph.num_channels):
        own = (steps.neuron == channel).nonzero()[:, 0]
        corners = [(1, 0.0)]
        for step in own.tolist():
            copies, added, slope = steps.copies[step].item(), steps.added[step].item(), steps.gain[step].item()
            assert copies == corners[-1][0] + added
            corners.append((copies, corners[-1][1] + added * slope))
        slopes = steps.gain[own].tolist()
        assert slopes == sorted(slopes)
        assert all(slope < 0 for slope in slopes)
        gains = {1: 0.0, **{m: among.gains[row, channel].item() for row, m in enumerate(choices)}}
        assert all(gain == pytest.approx(gains[m]) for m, gain in corners)
        assert corners[-1][1] == pytest.approx(min(gains.values()))
        for m, gain in gains.items():
            below = [a[1] + (b[1] - a[1]) * (m - a[0]) / (b[0] - a[0]) for a, b in pairwise(corners)]
            assert all(gain >= line - 1e-12 for line in below)


def test_hulls_of_neurons_without_a_gain_are_empty():
    graph = network(2)
    nothing = Candidates(graph, (2, 4), torch.zeros(2, graph.num_channels, dtype=torch.float64), {"0": math.inf})
    assert len(nothing.gain_hulls.neuron) == 0
