"""A tensor of a network as the grown network must have it: what belongs to a neuron belongs to each of its copies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.surgery.slots import in_place, sources


class AlongChannels:
    """Gathers tensors along their channels.

    Args:
        copies: (channels,) how many new channels a channel becomes.
    """

    def __init__(self, copies: Tensor) -> None:
        self._copies = copies
        self._parents = torch.arange(copies.numel()).repeat_interleave(copies)
        self._sources: dict[tuple[object, ...], Tensor | None] = {}
        self._alive: list[object] = []  # so that no two arrays ever share an id

    def expected(
        self, value: Tensor, before: np.ndarray | None, after: np.ndarray | None, shape: torch.Size
    ) -> Tensor | None:
        """Return what a tensor of the grown network must be; None if nothing that has these channels can be it.

        Args:
            value: of the network before.
            before: its channels, in an array that broadcasts to it; None if it has none.
            after: the new channels of the grown network's, likewise.
            shape: of the grown network's.
        """
        if value.dim() != len(shape):
            return None
        if before is None or after is None:
            return value if before is after and value.shape == shape else None
        along = [d for d in range(len(shape)) if before.shape[d] > 1 or after.shape[d] > 1]
        beside = [d for d in range(len(shape)) if d not in along]
        among_positions = any(before.shape[d] == 1 < min(value.shape[d], after.shape[d]) for d in along)
        if among_positions or any(value.shape[d] != shape[d] for d in beside):
            return None
        source = self._source(before, after, along, value.shape, shape)
        if source is None:
            return None
        if len(along) == 1:
            return value.index_select(along[0], source.to(value.device))
        order = along + beside
        flat = value.permute(order).reshape(-1, *(value.shape[d] for d in beside))
        taken = flat[source.to(value.device)].reshape([shape[d] for d in order])
        return taken.permute([order.index(d) for d in range(len(shape))])

    def in_place(self, channels: np.ndarray, dim: int | None = None) -> np.ndarray | None:
        """Return the new channels where copies sit beside their neuron; None if parts do not stay equally large.

        Args:
            channels: of a tensor.
            dim: along which they get more; the last one along which they run if it is left out.
        """
        varying = np.flatnonzero(np.array(channels.shape) > 1)
        if dim is None:
            dim = int(varying[-1]) if len(varying) else min(1, channels.ndim - 1)
        last = np.moveaxis(channels, dim, -1)
        rows = [in_place(torch.from_numpy(row), self._copies).numpy() for row in last.reshape(-1, last.shape[-1])]
        if any(len(row) != len(rows[0]) for row in rows):
            return None
        return np.moveaxis(np.stack(rows).reshape(*last.shape[:-1], -1), -1, dim)

    def _source(
        self, before: np.ndarray, after: np.ndarray, along: list[int], old: torch.Size, new: torch.Size
    ) -> Tensor | None:
        """Return the old slot that each new slot is a copy of, over all dimensions along which channels run."""
        sizes = [[shape[d] for d in along] for shape in (old, new)]
        key = (id(before), id(after), *along, *sizes[0], *sizes[1])
        if key not in self._sources:
            self._alive += [before, after]
            self._sources[key] = self._matched(_spread(before, along, sizes[0]), _spread(after, along, sizes[1]))
        return self._sources[key]

    def _matched(self, before: np.ndarray, after: np.ndarray) -> Tensor | None:
        wanted = in_place(torch.from_numpy(np.sort(before)), self._copies).numpy()
        if len(wanted) != len(after) or (np.sort(wanted) != np.sort(after)).any():
            return None
        try:
            return sources("", torch.from_numpy(before), torch.from_numpy(after), self._parents)
        except ModelError:
            return None


def _spread(channels: np.ndarray, along: list[int], sizes: list[int]) -> np.ndarray:
    """Return the channels (n,) at all places of these dimensions, which have these sizes."""
    return np.broadcast_to(channels.reshape([channels.shape[d] for d in along]), sizes).flatten()
