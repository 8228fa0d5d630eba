"""Averages over channels, such as those of a layer norm: what they are of, and what they ask of a growth.

If all channels of an average get the same number of copies, each of equal weight, then the average stays as it is:
with m copies x_i1, ..., x_im of every channel, sum_ij x_ij / (m C) = sum_i x_i / C as long as the copies do not move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.functions import PRODUCTS, functions
from nni_s3d.growth.graph.union_find import UnionFind

_MOMENTS = ("var", "std", "var_mean", "std_mean")
_NORMS = ("layer_norm", "rms_norm", "group_norm")
AVERAGING = frozenset(("mean", *_MOMENTS, *_NORMS))  # functions that may average over channels
_READERS = AVERAGING | set(functions(*PRODUCTS))


@dataclass(frozen=True, eq=False)
class Average:
    """Channels that a function averages, which must all have the same number of copies."""

    where: str  # the function, or the layer that calls it
    channels: Tensor  # (n,) int64


class SeenAverages:
    """The averages of one run.

    Attributes:
        found: in their order.
        calls: of functions that may average over channels, or sum over their products: their names, and whether they
            did.
    """

    def __init__(self) -> None:
        self.found: list[Average] = []
        self.calls: list[tuple[str, bool]] = []

    def note_call(self, name: str) -> None:
        """Note a call of a function, before it is known what it does."""
        if name in _READERS:
            self.calls.append((name, False))

    def note_read(self) -> int:
        """Note that the function that was called last averages over channels, or sums over their products.

        Returns:
            Which of the calls it is.
        """
        self.calls[-1] = (self.calls[-1][0], True)
        return len(self.calls) - 1

    def note_unread(self, numbers: Iterable[int]) -> None:
        """Note that some of the calls do not read channels after all."""
        for number in numbers:
            self.calls[number] = (self.calls[number][0], False)

    def note(self, where: str, channels: Tensor) -> None:
        """Note that the function that was called last averages over channels, int64 of any shape."""
        self.found.append(Average(where, channels.flatten()))
        self.note_read()


def together(averages: Sequence[Average], num_channels: int) -> list[np.ndarray]:
    """Return the sets of channels that must grow alike, each in ascending order: averages that share some are one."""
    if not averages:  # as a rule
        return []
    same = UnionFind()
    same.fresh(num_channels)
    for average in averages:
        same.union(average.channels[:1].expand_as(average.channels), average.channels)
    inside = averaged(averages, num_channels).numpy().nonzero()[0]
    root = same.roots()[inside]
    order = np.argsort(root, kind="stable")
    return np.split(inside[order], np.flatnonzero(np.diff(root[order])) + 1)


def averaged(averages: Iterable[Average], num_channels: int) -> Tensor:
    """Return which channels some average is of, bool (channels,)."""
    inside = torch.zeros(num_channels, dtype=torch.bool)
    for average in averages:
        inside[average.channels[average.channels >= 0]] = True
    return inside


def check_averages(averages: Iterable[Average], copies: Tensor, weights: Tensor) -> None:
    """Raise ModelError unless averages stay as they are.

    Args:
        averages: of a graph.
        copies: (channels,) of every channel.
        weights: (new channels,) of all copies, those of a channel side by side.
    """
    shares = torch.ones_like(weights) / copies.repeat_interleave(copies)
    equal = (weights - shares).abs() <= 1e-6
    first = copies.cumsum(0) - copies
    for average in averages:
        numbers = copies[average.channels]
        few, many = int(numbers.min()), int(numbers.max())
        if few < many:
            raise ModelError(
                f"plan: expected equally many copies of all channels that {average.where} averages, "
                f"got {few} to {many}; `with_equal_parts` finds the nearest copies that fit"
            )
        places = first[average.channels, None] + torch.arange(many)
        if not equal[places].all():
            raise ModelError(
                f"plan: expected copies of equal weight where {average.where} averages channels, got other weights; "
                "`select` and `plan_from_copies` give equal ones"
            )


class ReadingCalls:
    """Tells the calls that average over channels, or sum over their products, in another run of a network.

    Args:
        calls: of functions that may do that, in the order of the run before: their names, and whether they do.
    """

    def __init__(self, calls: Sequence[tuple[str, bool]]) -> None:
        self._calls = calls if any(over_channels for _, over_channels in calls) else ()
        self._met = list[str]()

    def met(self, name: str) -> bool:
        """Note a call, and return whether it averages over channels, or sums over their products."""
        if not self._calls or name not in _READERS:
            return False
        self._met.append(name)
        return len(self._met) <= len(self._calls) and self._calls[len(self._met) - 1][1]

    def check(self) -> None:
        """Raise ModelError if other functions were called than in the run before."""
        if self._calls and self._met != [name for name, _ in self._calls]:
            raise ModelError(
                f"model: expected the {len(self._calls)} means, norms and products that it called when it was traced, "
                f"got {len(self._met)} or others; give inputs like those of the trace, in evaluation mode"
            )


def divides_by_one_less(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a variance or deviation is over the number of elements less one; arguments behind the input."""
    if name not in _MOMENTS:
        return False
    unbiased = next((x for x in args if isinstance(x, bool)), kwargs.get("unbiased"))
    return bool(unbiased) if unbiased is not None else kwargs.get("correction", 1) != 0
