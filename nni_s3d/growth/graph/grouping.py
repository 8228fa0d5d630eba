"""From the labels of a trace to channel groups.

Channels belong to one group if they have the same producers; so every neuron of a group has the same parameters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, ChannelGraph, ChannelGroup, EqualParts, Layer, Role
from nni_s3d.growth.graph.tracer import Tracer


def build(t: Tracer, example_inputs: object) -> ChannelGraph:
    """Number the channels group by group and translate everything that was noted."""
    root = [t.same.find(channel) for channel in range(len(t.same.parent))]
    drafts = _by_producers(t.layers, root)
    place = {member: n for n, member in enumerate(member for _, members in drafts for member in members)}
    # Slots of -1 index the last entry, which is -1 as well.
    number = torch.tensor([*(place.get(r, -1) for r in root), -1], dtype=torch.int64)
    refused: dict[int, str] = {}
    for channel, reason in t.refused.items():
        refused.setdefault(root[channel], reason)
    layers = tuple(replace(layer, axes=tuple(_renumbered(a, number) for a in layer.axes)) for layer in t.layers)
    group_of = torch.tensor([n for n, (_, members) in enumerate(drafts) for _ in members], dtype=torch.int64)
    followers, consumers = (_with_role(layers, role, group_of, len(drafts)) for role in (Role.FOLLOW, Role.COLUMN))
    names: Counter[str] = Counter()
    groups, first = [], 0
    for n, (producers, members) in enumerate(drafts):
        name = str(layers[producers[0]])
        names[name] += 1
        reason = next((refused[member] for member in members if member in refused), "")
        groups.append(
            ChannelGroup(
                name=name if names[name] == 1 else f"{name}#{names[name]}",
                width=len(members),
                first=first,
                producers=tuple(layers[p] for p in dict.fromkeys(producers)),
                followers=followers[n],
                consumers=consumers[n],
                reason=reason or ("" if consumers[n] else "nothing reads it linearly"),
            )
        )
        first += len(members)
    return ChannelGraph(
        groups=tuple(groups),
        layers=layers,
        operations=tuple(replace(w, slots=None if w.slots is None else number[w.slots]) for w in t.operations),
        equal_parts=tuple(EqualParts(b.where, parts) for b in t.equal_parts if not _trivial(parts := number[b.parts])),
        shapes={name: parameter.shape for name, parameter in t.model.named_parameters()},
        unreached=tuple(t.unreached()),
        example_inputs=example_inputs,
    )


def _by_producers(layers: list[Layer], root: list[int]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Gather the channels by their producers: (numbers of the layers, a row each; channels in order) per group."""
    producers: dict[int, list[int]] = {}
    for n, layer in enumerate(layers):
        axis = next((axis for axis in layer.axes if axis.role is Role.ROW), None)
        for channel in axis.slots.tolist() if axis else ():
            producers.setdefault(root[channel], []).append(n)
    groups: dict[tuple[int, ...], list[int]] = {}
    for channel, rows in producers.items():
        groups.setdefault(tuple(rows), []).append(channel)
    return list(groups.items())


def _renumbered(axis: Axis, number: Tensor) -> Axis:
    return replace(axis, slots=number[axis.slots])


def _with_role(layers: tuple[Layer, ...], role: Role, group_of: Tensor, groups: int) -> list[tuple[Layer, ...]]:
    """Return the layers that are this to the channels of each group."""
    found: list[list[Layer]] = [[] for _ in range(groups)]
    for layer in layers:
        slots = [axis.slots for axis in layer.axes if axis.role is role]
        channels = torch.cat(slots) if slots else torch.empty(0, dtype=torch.int64)
        for group in group_of[channels[channels >= 0]].unique().tolist():
            found[group].append(layer)
    return [tuple(part) for part in found]


def _trivial(parts: Tensor) -> bool:
    """Whether all parts hold the same channels, so that they grow alike whatever happens."""
    ordered = parts.sort(dim=1).values
    return bool((ordered == ordered[:1]).all())
