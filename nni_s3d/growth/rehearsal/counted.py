"""Which channels the attributes of modules count, as far as a recorded run tells.

A function is given a number as the size of a dimension, or as the bound of a piece of one. If that number was computed
from an attribute, the attribute counts the channels along it: all of them, those of a part if it is multiplied, or
those of the tensor that is cut if it is divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.labels import NONE, growing_dim
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from nni_s3d.growth.rehearsal.marked import Marked, Source, marks
from nni_s3d.growth.rehearsal.record import Place

_SPLITS = ("split", "split_with_sizes")
_SIZES = ("view", "reshape", "expand", "broadcast_to")


@dataclass(frozen=True)
class _Use:
    """A number that a function is given."""

    number: Marked
    axis: np.ndarray | None  # (n,) the channels that it counts; None if it is a number of equal parts, which stays
    whole: np.ndarray | None  # those of the tensor that is cut, if they run along this dimension
    cut: int | None = None  # see `EqualParts`


def counted_attributes(
    places: Sequence[Place], values: Mapping[Source, int], growing_dims: Mapping[int, int]
) -> dict[Source, WidthAttribute]:
    """Return the attributes that count channels, with all axes that they are used for.

    Args:
        places: of a run with marked attributes.
        values: of the attributes.
        growing_dims: see `ChannelGraph`.
    """
    uses = [use for place in places if any(marks(place.arguments)) for use in _uses(place, growing_dims)]
    parts = {source for use in uses if use.axis is None for source in use.number.ratios}
    axes: dict[Source, dict[bytes, np.ndarray]] = {}
    cuts: dict[Source, set[int]] = {}
    for use in uses:
        for source in (one for one in use.number.ratios if one in values and one not in parts):
            for axis in _counted(use, source, values[source]):
                axes.setdefault(source, {}).setdefault(np.sort(axis).tobytes(), axis)
                if use.cut is not None and _is_multiple(use, source):
                    cuts.setdefault(source, set()).add(use.cut)
    return {
        source: WidthAttribute(
            *source, torch.from_numpy(np.stack(list(found.values()))), frozenset(cuts.get(source, ()))
        )
        for source, found in axes.items()
    }


def _is_multiple(use: _Use, source: Source) -> bool:
    """Whether the number is so many times the attribute."""
    ratio = use.number.ratios[source]
    return ratio is not None and ratio != 0 and ratio.denominator == 1


def _counted(use: _Use, source: Source, value: int) -> Iterator[np.ndarray]:
    """Yield the channels (value,) that an attribute counts; several of them must stay equally many."""
    if use.axis is not None and _is_multiple(use, source):
        parts = use.axis.reshape(value, -1)
        if bool((parts == parts[:, :1]).all()):  # positions of one channel side by side, as a flatten leaves them
            yield parts[:, 0]
        else:
            yield from use.axis.reshape(-1, value)
    elif use.whole is not None and len(use.whole) == value:
        yield use.whole


def _uses(place: Place, growing_dims: Mapping[int, int]) -> Iterator[_Use]:
    """Yield the marked numbers that say how large a dimension is along which channels run, or a piece of it."""
    args, kwargs = place.arguments
    rest = [*args[1:], *kwargs.values()]
    if place.name in _SPLITS:
        dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
        sizes = [rest[0]] * len(place.channels) if isinstance(rest[0], int) else rest[0]
        for size, piece in zip(sizes, place.channels, strict=False):
            yield from _of_piece(place, size, piece, dim)
    elif place.name == "narrow" and len(rest) == 3:
        dim, start, length = rest
        yield from _of_bound(place, start, dim)
        yield from _of_piece(place, length, place.channels[0], dim)
    elif place.name == "getitem" and place.given is not None:
        for dim, part in _slices(rest[0], place.given.ndim):
            yield from _of_bound(place, part.start, dim)
            yield from _of_bound(place, part.stop, dim)
    elif place.name in _SIZES:
        yield from _of_sizes(place, _flat(rest), 0, growing_dims)
    elif place.name == "unflatten" and len(rest) == 2 and place.given is not None:
        yield from _of_sizes(place, rest[1], rest[0] % place.given.ndim, growing_dims)


def _of_piece(place: Place, size: Any, piece: np.ndarray | None, dim: int) -> Iterator[_Use]:
    """Yield the size of a piece of the tensor that is cut."""
    rows, wholes = _rows(piece, dim), _rows(place.given, dim)
    if isinstance(size, Marked) and len(rows) and rows.shape[1] == size:
        for axis, whole in zip(rows, wholes if len(wholes) == len(rows) else [None] * len(rows), strict=True):
            yield _Use(size, axis, whole, place.cut)


def _of_bound(place: Place, bound: Any, dim: int) -> Iterator[_Use]:
    """Yield the place where a tensor is cut, which counts the channels before it, or behind it if it is negative."""
    whole = _along(place.given, dim)
    if isinstance(bound, Marked) and whole is not None and 0 < abs(bound) <= len(whole):
        yield _Use(bound, whole[: int(bound)] if bound > 0 else whole[int(bound) :], whole, place.cut)


def _of_sizes(place: Place, sizes: Sequence[Any], first: int, growing_dims: Mapping[int, int]) -> Iterator[_Use]:
    """Yield the sizes of a tensor, those of its dimensions from the first one of these on."""
    out = place.own if place.channels[0] is None else place.channels[0]
    varying = [] if out is None else [dim for dim, size in enumerate(out.shape) if size > 1]
    grows = growing_dims.get(NONE if place.reshape is None else place.reshape, varying[-1] if varying else NONE)
    for dim, size in enumerate(sizes, first):
        if out is not None and isinstance(size, Marked) and dim in varying:
            rows = np.moveaxis(out, dim, -1).reshape(-1, out.shape[dim])
            for axis in rows if dim == grows else [None]:
                yield _Use(size, axis, out.ravel())


def _slices(index: Any, dims: int) -> Iterator[tuple[int, slice]]:
    """Yield the slices of an index, each with the dimension that it cuts; those before an ellipsis and behind it."""
    parts = [part for part in (index if isinstance(index, tuple) else (index,)) if part is not None]
    if any(isinstance(part, (Tensor, list)) for part in parts):
        return
    start = next((n for n, part in enumerate(parts) if part is ...), len(parts))
    for n, part in enumerate(parts):
        if isinstance(part, slice):
            yield n if n < start else dims - len(parts) + n, part


def _along(channels: np.ndarray | None, dim: int) -> np.ndarray | None:
    """Return the channels (n,) along a dimension; None if they run along another one."""
    if channels is None or channels.size != channels.shape[dim]:
        return None
    return channels.ravel()


def _rows(channels: np.ndarray | None, dim: int) -> np.ndarray:
    """Return the rows of channels (rows, n) along a dimension in which they get more: several if these are in heads."""
    if (alone := _along(channels, dim)) is not None:
        return alone[None]
    if channels is None or growing_dim(torch.from_numpy(channels)) != dim % channels.ndim:
        return np.empty((0, 0), np.int64)
    return np.moveaxis(channels, dim, -1).reshape(-1, channels.shape[dim])


def _flat(sizes: Sequence[Any]) -> list[Any]:
    return [size for one in sizes for size in (one if isinstance(one, (tuple, list)) else [one])]
