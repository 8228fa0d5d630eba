"""The best gain of exactly so many more copies in a cell, for all numbers at once.

With one number of copies that is a sum of the largest gains. With several of them it is a knapsack that must be filled
exactly, by dynamic programming over the channels: F_i(k) = min_j F_(i-1)(k - j) + gain of j more copies of channel i.
Channels without a gain fill up. Of equal gains the earlier channel's counts first.
"""

from __future__ import annotations

import numpy as np


class CellTable:
    """Several cells of equal size.

    Args:
        gains: (choices, cells, n) of every channel with each number of more copies.
        added: (choices,) these numbers, > 0 and ascending.

    Attributes:
        gain: (cells, most + 1) of exactly 0, 1, 2, ... more copies; infinite where no choice of copies has that number.
    """

    def __init__(self, gains: np.ndarray, added: tuple[int, ...]) -> None:
        self._added = added
        _, cells, n = gains.shape
        self.gain = np.full((cells, n * added[-1] + 1), np.inf)
        self.gain[:, 0] = 0
        if len(added) == 1:
            order = np.argsort(gains[0], axis=1, kind="stable")
            self._rank = np.argsort(order, axis=1, kind="stable")
            self.gain[:, added[0] :: added[0]] = np.take_along_axis(gains[0], order, axis=1).cumsum(axis=1)
        else:
            self._chosen = np.zeros((n, *self.gain.shape), np.int8)  # more copies of channel i, if 0 to i have so many
            for channel in range(n):
                self._add(channel, gains[:, :, channel])

    def _add(self, channel: int, gains: np.ndarray) -> None:
        """Let one more channel of every cell, of gains (choices, cells), have copies."""
        before = self.gain.copy()
        for more, gain in zip(self._added, gains, strict=True):
            with_it = before[:, :-more] + gain[:, None]
            better = with_it < self.gain[:, more:]
            self.gain[:, more:][better] = with_it[better]
            self._chosen[channel, :, more:][better] = more

    def more_copies(self, total: np.ndarray) -> np.ndarray:
        """Return the best (cells, n) more copies of every channel, (cells,) in each cell together."""
        if len(self._added) == 1:
            return np.where(self._rank < total[:, None] // self._added[0], self._added[0], 0)
        cells, left = np.arange(len(total)), total.copy()
        more = np.zeros((len(total), len(self._chosen)), np.int64)
        for channel in reversed(range(len(self._chosen))):
            more[:, channel] = self._chosen[channel, cells, left]
            left -= more[:, channel]
        return more
