"""From the notes of a trace to the channel graph.

Channels belong to one group if they have the same producers; so every neuron of a group has the same parameters. Those
that are refused are in groups of their own. The tracer numbers channels in the order in which it meets them; here they
are numbered group by group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.averages import Average, averaged
from nni_s3d.growth.graph.channels import Axis, ChannelGraph, ChannelGroup, EqualParts, Layer, Operation, Role
from nni_s3d.growth.graph.labels import NONE, drop_repeats, evenly_cut
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.products_of_channels import ProductsOfChannels
from nni_s3d.growth.graph.refused_averages import averages_refused


@dataclass(frozen=True)
class _Draft:
    """A group before its channels are numbered."""

    producers: tuple[int, ...]  # numbers of the layers, each as often as it has rows for one neuron
    channels: np.ndarray  # (width,) as the tracer numbers those that stand for all that are one


def build_graph(notes: Notes, example_inputs: object, growing_dims: Mapping[int, int] | None = None) -> ChannelGraph:
    """Return the channel graph of the model that these notes were taken of.

    Args:
        notes: of one run.
        example_inputs: of that run.
        growing_dims: {number of a reshape among `notes.reshapes`: the dimension along which its channels get more}; the
            last one along which they run if it is left out.
    """
    growing_dims = growing_dims or {}
    representatives = notes.same.roots()
    drafts = _drafts(notes.layers, representatives, _refused(notes.refusals, representatives))
    renumbering = _Renumbering(drafts, representatives)
    layers = tuple(_renumbered(layer, renumbering, notes.products) for layer in notes.layers)
    operations = (_renumbered_operation(operation, renumbering) for operation in notes.operations)
    cuts = [*notes.equal_parts, *_cuts_by_reshapes(notes.reshapes, renumbering, growing_dims)]
    equal_parts = (replace(cut, parts=renumbering(cut.parts)) for cut in cuts)
    averages = [Average(average.where, renumbering(average.channels)) for average in notes.averages.found]
    read = averaged(averages, int(renumbering.first[-1]))
    for channels in map(renumbering, notes.products.summed):
        read[channels[channels >= 0]] = True
    groups = averages_refused(_groups(drafts, layers, _reasons(notes.refusals, renumbering), read), averages)
    frozen = [name for name, parameter in notes.parameters.items() if not parameter.requires_grad]
    return ChannelGraph(
        groups=groups,
        layers=layers,
        operations=tuple(operations),
        equal_parts=tuple(cut for cut in equal_parts if not _holds_always(cut.parts)),
        shapes={name: parameter.shape for name, parameter in notes.parameters.items()},
        buffer_shapes={name: buffer.shape for name, buffer in notes.buffers.items()},
        unreached=tuple(notes.unreached()),
        example_inputs=example_inputs,
        uncounted=tuple(notes.uncounted),
        not_followed=tuple(notes.not_followed()),
        frozen=frozenset(frozen if len(frozen) < len(notes.parameters) else ()),  # else it is only used
        growing_dims=growing_dims,
        averages=tuple(average for average in averages if bool((average.channels >= 0).all())),
        reading_calls=tuple(notes.averages.calls),
        divided=tuple(renumbering(labels) for labels in notes.products.divided),
        channels_pass=notes.channels_pass,
    )


def _refused(refusals: Sequence[tuple[Tensor, str]], representatives: np.ndarray) -> np.ndarray:
    """Return which channels are refused, (channels,) bool, by the numbers of those that stand for all that are one."""
    refused = np.zeros(len(representatives) + 1, bool)
    for labels in {id(labels): labels for labels, _ in refusals}.values():
        refused[np.append(representatives, NONE)[labels.numpy()]] = True  # the last one is for no channel
    return refused[:-1]


def _drafts(layers: Sequence[Layer], representatives: np.ndarray, refused: np.ndarray) -> list[_Draft]:
    """Gather the channels by their producers, in the order in which the run came to them.

    Layer by layer, channels that had the same producers so far stay together if the layer has the same rows for them.
    """
    rows = [(n, representatives[slots.numpy()]) for n, layer in enumerate(layers) if len(slots := layer.row_slots)]
    together = refused.astype(np.int64)  # equal for channels that had the same producers so far
    producers: list[tuple[int, ...]] = [(), ()]
    for n, slots in rows:
        channels, times = _counted(slots)
        base = times.max() + 1
        keys, which = _ranked(together[channels] * base + times)
        together[channels] = len(producers) + which
        producers += [producers[key // base] + (n,) * int(key % base) for key in keys]
    produced = np.concatenate([representatives[:0], *(slots for _, slots in rows)])
    met, place = np.unique(produced, return_index=True)
    met = met[np.argsort(place)]
    of_group = together[met]
    by_group = np.split(met[np.argsort(of_group, kind="stable")], np.cumsum(np.bincount(of_group, minlength=1))[:-1])
    return [_Draft(producers[n], by_group[n]) for n in dict.fromkeys(of_group.tolist())]


def _ranked(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | int]:
    """Return the keys in order, each once, and the place of each key among them; mostly they are all equal."""
    if bool((keys == keys[0]).all()):
        return keys[:1], 0
    return np.unique(keys, return_inverse=True)


def _counted(channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the channels in order, each once, and how often each occurs; mostly they are in order and occur once."""
    if bool((channels[1:] > channels[:-1]).all()):
        return channels, np.ones_like(channels)
    return np.unique(channels, return_counts=True)


class _Renumbering:
    """From the numbers of channels in the trace to those in the graph; equal slots share one tensor."""

    def __init__(self, drafts: Sequence[_Draft], representatives: np.ndarray) -> None:
        self.first = np.cumsum([0, *(len(draft.channels) for draft in drafts)])  # (groups + 1,)
        place = np.full(len(representatives), NONE)
        for start, draft in zip(self.first, drafts, strict=False):
            place[draft.channels] = start + np.arange(len(draft.channels))
        self._numbers = np.append(place[representatives], NONE)  # where the last one is for NONE
        self._done: dict[int, tuple[Tensor, Tensor]] = {}  # by id, old and new
        self._shared: dict[tuple[torch.Size, bytes], Tensor] = {}

    def __call__(self, slots: Tensor) -> Tensor:
        """Return the slots, of any shape, with the graph's numbers; NONE for channels that no layer produces."""
        if id(slots) not in self._done:
            renumbered = np.asarray(self._numbers[slots.numpy()])
            key = (slots.shape, renumbered.tobytes())
            if key not in self._shared:
                self._shared[key] = torch.from_numpy(renumbered)
            self._done[id(slots)] = (slots, self._shared[key])
        return self._done[id(slots)][1]


def _renumbered(layer: Layer, renumbering: _Renumbering, products: ProductsOfChannels) -> Layer:
    axes = []
    for axis in layer.axes:
        key = (axis.tensor, axis.dim)
        carries = None if axis.role is Role.COLUMN else products.carrying.get(key)
        slots, is_metric = renumbering(axis.slots), key in products.metrics
        axes.append(Axis(axis.tensor, axis.dim, axis.role, slots, axis.blocks, carries, is_metric))
    return replace(layer, axes=tuple(axes))


def _renumbered_operation(operation: Operation, renumbering: _Renumbering) -> Operation:
    if operation.slots is None:
        return operation
    return Operation(operation.kind, operation.repeats, operation.weight, renumbering(operation.slots))


def _reasons(refusals: Sequence[tuple[Tensor, str]], renumbering: _Renumbering) -> list[str]:
    """Return why each group is refused: the first reason for the first of its channels that has one."""
    first = renumbering.first
    refusal = np.full(first[-1], NONE)  # number of the first refusal of each channel
    for n, (channels, _) in reversed(list(enumerate(refusals))):
        numbers = renumbering(channels).numpy()
        refusal[numbers[numbers >= 0]] = n
    reasons = []
    for start, stop in pairwise(first):
        refused = refusal[start:stop][refusal[start:stop] >= 0]
        reasons.append(refusals[refused[0]][1] if len(refused) else "")
    return reasons


def _groups(
    drafts: Sequence[_Draft], layers: Sequence[Layer], reasons: Sequence[str], read: Tensor
) -> tuple[ChannelGroup, ...]:
    """Return the groups, named after their first producers; `read`: which channels need no layer that reads them."""
    widths = [len(draft.channels) for draft in drafts]
    group_of = np.repeat(np.arange(len(drafts)), widths)
    followers, consumers = (_by_group(layers, role, group_of, len(drafts)) for role in (Role.FOLLOW, Role.COLUMN))
    names: Counter[str] = Counter()
    groups, first = [], 0
    for n, (draft, width) in enumerate(zip(drafts, widths, strict=True)):
        name = str(layers[draft.producers[0]])
        names[name] += 1
        is_read = consumers[n] or bool(read[first : first + width].all())
        groups.append(
            ChannelGroup(
                name=name if names[name] == 1 else f"{name}#{names[name]}",
                width=width,
                first=first,
                producers=tuple(layers[place] for place in dict.fromkeys(draft.producers)),
                followers=followers[n],
                consumers=consumers[n],
                reason=reasons[n]
                or ("" if is_read else "nothing reads it linearly; let a linear layer or a convolution read it"),
            )
        )
        first += width
    return tuple(groups)


def _by_group(layers: Sequence[Layer], role: Role, group_of: np.ndarray, groups: int) -> list[tuple[Layer, ...]]:
    """Return the layers that have this role for some channel of each group."""
    members: list[list[Layer]] = [[] for _ in range(groups)]
    along: dict[int, set[int]] = {}  # the groups along slots, by their ids, since many axes share them
    for layer in layers:
        met: set[int] = set()
        for slots in (axis.slots for axis in layer.axes if axis.role is role):
            if id(slots) not in along:
                along[id(slots)] = _groups_along(slots.numpy(), group_of)
            met |= along[id(slots)]
        for group in sorted(met):
            members[group].append(layer)
    return [tuple(part) for part in members]


def _groups_along(slots: np.ndarray, group_of: np.ndarray) -> set[int]:
    """Return the groups whose channels are at these slots (n,); those of one group mostly lie side by side."""
    groups = group_of[slots[slots >= 0]]
    return set(groups[np.flatnonzero(np.diff(groups, prepend=NONE))].tolist())


def _cuts_by_reshapes(
    reshapes: Sequence[tuple[str, Tensor]], renumbering: _Renumbering, growing_dims: Mapping[int, int]
) -> Iterator[EqualParts]:
    """Yield cuts in the numbers of the trace: where channels run along several dimensions, all but one cut them.

    A dimension along which all channels have become one is none of them: copies take all of it along.
    """
    for n, (where, labels) in enumerate(reshapes):
        for dim, size in enumerate(drop_repeats(renumbering(labels)).shape):
            labels = labels.narrow(dim, 0, size)
        varying = [dim for dim, size in enumerate(labels.shape) if size > 1]
        if len(varying) > 1:
            if n in growing_dims:
                parts = labels.movedim(growing_dims[n], -1).flatten(0, -2)
            else:
                parts = evenly_cut(labels.flatten(), labels.numel() // labels.shape[varying[-1]])
            yield EqualParts(where, parts, n)


def _holds_always(parts: Tensor) -> bool:
    """Whether all parts (parts, n) hold the same channels, so that they grow alike whatever happens."""
    sums = parts.numpy().sum(axis=1)
    if (sums != sums[0]).any():  # as a rule
        return False
    ordered = parts.sort(dim=1).values
    return bool((ordered == ordered[:1]).all())
