"""The ways of clusters to grow, against all choices of copies."""

from itertools import product

import numpy as np
import pytest
import torch

from nni_s3d.growth.graph.clusters import find_clusters
from nni_s3d.growth.selection.ladder import Ladder, lower_hull
from tests.growth.selection.made_up import averaged_network, cut_network

HALVES = [[[0, 1], [2, 3]]]
SEVERAL = [[[0, 1], [2, 3]], [[0, 4], [2, 5]], [[1], [5]]]


def ladder(cuts, choices, seed=0, prices=None) -> tuple[Ladder, torch.Tensor]:
    graph = cut_network(4, 2, cuts=cuts)
    gains = -torch.rand(len(choices), graph.num_channels, generator=torch.Generator().manual_seed(seed)).double()
    cluster = find_clusters(graph).clusters[0]
    return Ladder.of(cluster, gains, choices, torch.ones(9).double() if prices is None else prices), gains


@pytest.mark.parametrize("choices", [(2,), (3,), (2, 3, 4), (2, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_ways_in_one_ratio_are_the_best_for_each_number_of_copies(seed, choices):
    found, gains = ladder(HALVES, choices, seed)
    best: dict[int, float] = {}
    for copies in product((1, *choices), repeat=4):
        if copies[0] + copies[1] == copies[2] + copies[3]:
            gain = sum(float(gains[choices.index(m), c]) for c, m in enumerate(copies) if m > 1)
            best[sum(copies) - 4] = min(best.get(sum(copies) - 4, 0.0), gain)
    total = found.total(torch.ones(9))
    assert found.gains[0] == total[0] == 0
    assert (np.diff(total) > 0).all()
    assert (np.diff(found.gains) < 0).all()  # ways that win nothing more are left out
    for n, gain in zip(total.tolist(), found.gains.tolist(), strict=True):
        assert gain == pytest.approx(best[n])
    assert found.gains[-1] == pytest.approx(min(best.values()))
    for way in range(len(total)):
        copies = torch.ones(9, dtype=torch.int64)
        copies[found.channels] = found.copies(way)
        assert copies[:2].sum() == copies[2:4].sum() == 2 + total[way] / 2
        assert all(m in (1, *choices) for m in copies.tolist())
        gain = sum(float(gains[choices.index(m), c]) for c, m in enumerate(copies.tolist()) if m > 1)
        assert gain == pytest.approx(found.gains[way])


@pytest.mark.parametrize(
    ("averages", "cuts"), [([[0, 1, 2]], ()), ([[0, 1], [2, 3]], HALVES), ([[0, 1]], HALVES), ([[1, 4]], ())]
)
@pytest.mark.parametrize("choices", [(2,), (2, 3, 4)])
def test_ways_of_averages_are_the_best_for_each_number_of_copies(choices, averages, cuts):
    graph = averaged_network(4, 2, averages=averages, cuts=cuts)
    gains = -torch.rand(len(choices), graph.num_channels, generator=torch.Generator().manual_seed(0)).double()
    found = Ladder.of(find_clusters(graph).clusters[0], gains, choices, torch.ones(9).double())
    inside, best = found.channels.tolist(), dict[float, float]()
    for copies in product((1, *choices), repeat=len(inside)):
        number = dict(zip(inside, copies, strict=True))
        alike = all(len({number.get(c, 1) for c in channels}) == 1 for channels in averages)
        if alike and all(len({sum(number.get(c, 1) for c in part) for part in cut}) == 1 for cut in cuts):
            gain = sum(float(gains[choices.index(m), c]) for c, m in number.items() if m > 1)
            best[sum(copies) - len(copies)] = min(best.get(sum(copies) - len(copies), 0.0), gain)
    for way, (total, gain) in enumerate(zip(found.total(torch.ones(9)).tolist(), found.gains.tolist(), strict=True)):
        assert gain == pytest.approx(best[total])
        copies = found.copies(way)
        assert int((copies - 1).sum()) == total
        number = dict(zip(inside, copies.tolist(), strict=True))
        assert all(len({number.get(c, 1) for c in channels}) == 1 for channels in averages)
    assert found.gains[-1] == pytest.approx(min(best.values()))


@pytest.mark.parametrize("choices", [(2,), (2, 3, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_ways_in_several_ratios_keep_parts_equal_and_reach_the_best(seed, choices):
    prices = 1 + torch.rand(9, generator=torch.Generator().manual_seed(seed)).double()
    found, gains = ladder(SEVERAL, choices, seed, prices)
    assert found.cells.cluster.ratio is None
    assert len(found.gains) > 2
    best = 0.0
    for copies in product((1, *choices), repeat=6):
        a, b, c, d, e, f = copies
        if a + b == c + d and a + e == c + f and b == f:
            best = min(best, sum(float(gains[choices.index(m), i]) for i, m in enumerate(copies) if m > 1))
    # The program takes the gain of a cell for convex, as it is with one number of copies.
    assert best * (1 + 1e-9) <= found.gains[-1] <= best * (0.998 if len(choices) == 1 else 0.85)
    for way in range(len(found.gains)):
        copies = torch.ones(9, dtype=torch.int64)
        copies[found.channels] = found.copies(way)
        a, b, c, d, e, f = copies[:6].tolist()
        assert a + b == c + d and a + e == c + f and b == f  # noqa: PT018
        assert found.total(prices)[way] == pytest.approx(float(((copies - 1) * prices).sum()), rel=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_hull_is_convex_and_below_all_points(seed):
    rng = np.random.default_rng(seed)
    x, y = np.arange(20), rng.standard_normal(20)
    corners = lower_hull(x, y)
    slopes = np.diff(y[corners]) / np.diff(x[corners])
    assert corners[0] == 0
    assert corners[-1] == 19
    assert (np.diff(slopes) > 0).all()
    assert (np.interp(x, x[corners], y[corners]) <= y + 1e-12).all()
