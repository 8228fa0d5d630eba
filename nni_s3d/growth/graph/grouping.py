"""From the labels of a trace to channel groups.

Channels belong to one group if they have the same producers; so every neuron of a group has the same parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, ChannelGraph, ChannelGroup, EqualParts, Layer, Role
from nni_s3d.growth.graph.tracer import Tracer


def build(t: Tracer, example_inputs: object) -> ChannelGraph:
    """Number the channels group by group and translate everything that was noted."""
    roots = t.same.roots()
    drafts = _by_producers(t.layers, roots)
    number = _numbers([members for _, members in drafts], roots)
    group_of = torch.arange(len(drafts)).repeat_interleave(torch.tensor([len(members) for _, members in drafts]).long())
    reasons = _reasons(t.refusals, number, group_of)
    layers = _renumbered(t.layers, number)
    followers, consumers = (_with_role(layers, role, group_of, len(drafts)) for role in (Role.FOLLOW, Role.COLUMN))
    names: Counter[str] = Counter()
    groups, first = [], 0
    for n, (producers, members) in enumerate(drafts):
        name = str(layers[producers[0]])
        names[name] += 1
        groups.append(
            ChannelGroup(
                name=name if names[name] == 1 else f"{name}#{names[name]}",
                width=len(members),
                first=first,
                producers=tuple(layers[p] for p in dict.fromkeys(producers)),
                followers=followers[n],
                consumers=consumers[n],
                reason=reasons.get(n, "" if consumers[n] else "nothing reads it linearly"),
            )
        )
        first += len(members)
    return ChannelGraph(
        groups=tuple(groups),
        layers=layers,
        operations=tuple(replace(w, slots=None if w.slots is None else number[w.slots]) for w in t.operations),
        equal_parts=tuple(EqualParts(b.where, parts) for b in t.equal_parts if not _trivial(parts := number[b.parts])),
        shapes={name: parameter.shape for name, parameter in t.parameters.items()},
        unreached=tuple(t.unreached()),
        example_inputs=example_inputs,
    )


def _by_producers(layers: Sequence[Layer], roots: np.ndarray) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Gather the channels by their producers: (numbers of the layers, a row each; channels in order) per group."""
    first_axes = (
        (n, next((a.slots for a in layer.axes if a.role is Role.ROW), None)) for n, layer in enumerate(layers)
    )
    rows = [(n, slots.numpy()) for n, slots in first_axes if slots is not None]
    if not rows:
        return []
    channels = roots[np.concatenate([slots for _, slots in rows])]
    producers = np.repeat([n for n, _ in rows], [len(slots) for _, slots in rows])
    # Sorted by channel, every channel is a run of rows; the producers along the run say which group it belongs to.
    order = np.argsort(channels, kind="stable")
    starts = np.flatnonzero(np.diff(channels[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    seen = np.argsort(order[starts])  # the channels in the order in which their first rows come
    starts, lengths = starts[seen], lengths[seen]
    members, producers = channels[order[starts]], producers[order]
    places: dict[tuple[int, ...], list[np.ndarray]] = {}  # of the members of every group among all
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        runs = producers[starts[alike, None] + np.arange(length)]
        cuts = 1 + np.flatnonzero((runs[1:] != runs[:-1]).any(axis=1))
        for start, block in zip((0, *cuts), np.split(alike, cuts), strict=True):
            places.setdefault(tuple(runs[start].tolist()), []).append(block)
    groups = [(run, np.concatenate(blocks)) for run, blocks in places.items()]
    return [(run, members[where]) for run, where in sorted(groups, key=lambda group: int(group[1][0]))]


def _numbers(members: Sequence[np.ndarray], roots: np.ndarray) -> Tensor:
    """Return the new number of every channel, -1 where no layer produces it."""
    place = np.full(len(roots), -1)
    if members:
        place[np.concatenate(members)] = np.arange(sum(map(len, members)))
    # Slots of -1 index the last entry, which is -1 as well.
    return torch.from_numpy(np.append(place[roots], -1))


def _reasons(refusals: Sequence[tuple[Tensor, str]], number: Tensor, group_of: Tensor) -> dict[int, str]:
    """Return why groups are refused: the first reason of the first channel that has one."""
    first = torch.full((len(group_of) + 1,), -1)  # the refusal of every channel; the last entry is for none
    for n in reversed(range(len(refusals))):
        channels, _ = refusals[n]
        first[number[channels.clamp(min=-1)]] = n
    refused = (first[:-1] >= 0).nonzero()[:, 0].flip(0)
    return {group: refusals[n][1] for group, n in zip(group_of[refused].tolist(), first[refused].tolist(), strict=True)}


def _renumbered(layers: Sequence[Layer], number: Tensor) -> tuple[Layer, ...]:
    """Return the layers with new numbers at their slots; axes with equal slots share one tensor."""
    slots = {id(axis.slots): axis.slots for layer in layers for axis in layer.axes}
    shared: dict[bytes, Tensor] = {}
    new = {key: shared.setdefault((fresh := number[old]).numpy().tobytes(), fresh) for key, old in slots.items()}
    return tuple(
        replace(layer, axes=tuple(Axis(a.tensor, a.dim, a.role, new[id(a.slots)], a.blocks) for a in layer.axes))
        for layer in layers
    )


def _with_role(layers: Sequence[Layer], role: Role, group_of: Tensor, groups: int) -> list[tuple[Layer, ...]]:
    """Return the layers that are this to the channels of each group."""
    found: list[list[Layer]] = [[] for _ in range(groups)]
    owners = np.append(group_of.numpy(), -1)
    known: dict[int, set[int]] = {}  # the groups along slots, by their ids
    for layer in layers:
        met: set[int] = set()
        for axis in layer.axes:
            if axis.role is role:
                if id(axis.slots) not in known:
                    known[id(axis.slots)] = set(np.unique(owners[axis.slots.numpy()]).tolist())
                met |= known[id(axis.slots)]
        for group in sorted(met - {-1}):
            found[group].append(layer)
    return [tuple(part) for part in found]


def _trivial(parts: Tensor) -> bool:
    """Whether all parts hold the same channels, so that they grow alike whatever happens."""
    ordered = parts.sort(dim=1).values
    return bool((ordered == ordered[:1]).all())
