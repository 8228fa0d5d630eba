"""The best gain of exactly so many more copies, against all choices."""

from itertools import product

import numpy as np
import pytest

from nni_s3d.growth.selection.cell_table import CellTable


def best_of_all(gains: np.ndarray, added: tuple[int, ...]) -> dict[int, float]:
    """Return the best gain for every number of more copies in one cell of gains (choices, n)."""
    best: dict[int, float] = {}
    for more in product((0, *added), repeat=gains.shape[1]):
        gain = sum(gains[added.index(m), i] for i, m in enumerate(more) if m)
        best[sum(more)] = min(best.get(sum(more), np.inf), gain)
    return best


@pytest.mark.parametrize("added", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_gains_are_the_best_and_copies_have_them(n, added):
    rng = np.random.default_rng(n)
    gains = -rng.random((len(added), 3, n)) * (rng.random((len(added), 3, n)) < 0.7)  # some gain nothing
    table = CellTable(gains, added)
    for cell in range(3):
        best = best_of_all(gains[:, cell], added)
        for total in range(n * added[-1] + 1):
            assert table.gain[cell, total] == pytest.approx(best.get(total, np.inf))
    for total in best_of_all(gains[:, 0], added):
        more = table.more_copies(np.full(3, total))
        assert more.sum(axis=1).tolist() == [total] * 3
        for cell in range(3):
            gain = sum(gains[added.index(m), cell, i] for i, m in enumerate(more[cell].tolist()) if m)
            assert gain == pytest.approx(table.gain[cell, total])


@pytest.mark.parametrize("added", [(1,), (1, 2, 3)])
def test_ties_go_to_the_earlier_channel(added):
    gains = -np.ones((len(added), 1, 4))
    assert CellTable(gains, added).more_copies(np.array([added[0] * 2]))[0].tolist() == [added[0]] * 2 + [0] * 2
