"""From the labels of a trace to channel groups."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nni_s3d.growth.channels import Axis, ChannelGraph, ChannelGroup, Layer, Role, Work
from nni_s3d.growth.tracing import Tracer, UnionFind


def build(t: Tracer) -> ChannelGraph:
    """Number the channels group by group and translate everything that was noted."""
    sealed: dict[int, str] = {}
    for channel, reason in t.sealed.items():
        sealed.setdefault(t.same.find(channel), reason)
    drafts = _components(t)
    number = torch.full((len(t.same.parent) + 2,), -1)
    roots = [t.same.find(channel) for channel in range(len(t.same.parent))]
    place = {root: n for n, root in enumerate(root for draft in drafts for root in draft[0])}
    number[: len(roots)] = torch.tensor([place.get(root, -1) for root in roots], dtype=torch.int64)
    # Slots of -1 index the last entry, which is -1 as well.
    layers = {id(layer): _renumbered(layer, number) for layer in t.layers}
    groups, first = [], 0
    for members, producers in drafts:
        inside = range(first, first + len(members))
        all_layers = list(layers.values())
        reason = next((sealed[root] for root in members if root in sealed), "")
        consumers = _with_role(all_layers, Role.COLUMN, inside)
        if not reason and any(not _covers(layers[id(p)], inside) for p in producers):
            reason = f"its producers {', '.join(p.name for p in producers)} share only some of their channels"
        groups.append(
            ChannelGroup(
                name=str(producers[0]),
                width=len(members),
                first=first,
                producers=tuple(layers[id(p)] for p in producers),
                followers=_with_role(all_layers, Role.FOLLOW, inside),
                consumers=consumers,
                reason=reason or ("" if consumers else "nothing reads it linearly"),
            )
        )
        first += len(members)
    works = tuple(
        Work(w.kind, w.positions, w.weight, number[w.slots] if w.slots is not None else None) for w in t.works
    )
    shapes = {name: parameter.shape for name, parameter in t.model.named_parameters()}
    return ChannelGraph(tuple(groups), tuple(layers.values()), works, shapes)


def _components(t: Tracer) -> list[tuple[list[int], list[Layer]]]:
    """Gather the channels that share a producer: (roots in the first producer's order, producers) per group."""
    producers = [layer for layer in t.layers if any(axis.role is Role.ROW for axis in layer.axes)]
    rows = {
        id(layer): list(
            dict.fromkeys(t.same.find(c) for a in layer.axes if a.role is Role.ROW for c in a.slots.tolist())
        )
        for layer in producers
    }
    group_of = UnionFind()
    group_of.fresh(len(t.same.parent))
    for members in rows.values():
        for member in members:
            group_of.union(members[0], member)
    drafts: dict[int, tuple[list[int], list[Layer]]] = {}
    for layer in producers:
        members, layers = drafts.setdefault(group_of.find(rows[id(layer)][0]), ([], []))
        members.extend(root for root in rows[id(layer)] if root not in set(members))
        layers.append(layer)
    return list(drafts.values())


def _renumbered(layer: Layer, number: Tensor) -> Layer:
    axes = tuple(Axis(a.tensor, a.dim, a.role, number[a.slots]) for a in layer.axes)
    return replace(layer, axes=axes)


def _with_role(layers: list[Layer], role: Role, channels: range) -> tuple[Layer, ...]:
    low, high = channels.start, channels.stop
    return tuple(
        layer
        for layer in layers
        if any(a.role is role and bool(((a.slots >= low) & (a.slots < high)).any()) for a in layer.axes)
    )


def _covers(producer: Layer, channels: range) -> bool:
    """Whether a producer has the same number of rows for every channel of the group."""
    slots = next(a.slots for a in producer.axes if a.role is Role.ROW)
    counts = torch.bincount(slots[slots >= 0], minlength=channels.stop)[channels.start : channels.stop]
    return bool(counts.min() > 0) and bool(counts.min() == counts.max())
