"""The layers that a run has come to: one for each weight, however often it is called.

Where a layer is called again, what it reads then becomes one with what it read before, channel by channel, and so does
what it puts out: the neuron is the same row each time. A stack is one parameter with the weights of several layers of
one size, such as experts, one after the other along its first dimension: its layers are blocks of one layer, of which
every call is for one. A run may leave some blocks out, since no sample came to these experts; their channels meet as
those of the others do, whose code is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, EqualParts, Layer, Role
from nni_s3d.growth.graph.labels import NONE
from nni_s3d.growth.graph.union_find import UnionFind

Refuse = Callable[[Iterable[Tensor | None], str, str], object]


@dataclass(frozen=True)
class Block:
    """Which one of the weights in a stack is meant."""

    index: int
    blocks: int  # in all


class LayerNotes:
    """Takes notes of calls of layers.

    Args:
        same: which channels were found to be one.
        refuse: channels, for what they met; and what could be written instead.
        shared: parameters that several modules own.

    Attributes:
        layers: in the order of the run.
        used: parameters and buffers of layers.
    """

    def __init__(self, same: UnionFind, refuse: Refuse, shared: Iterable[str]) -> None:
        self.layers: list[Layer] = []
        self.used: set[str] = set()
        self._same, self._refuse, self._shared = same, refuse, set(shared)
        self._of_weight: dict[str, Layer] = {}
        self._rows: dict[str, Tensor] = {}  # which weights produce
        self._calls: dict[tuple[str, int], Sequence[Axis]] = {}  # the axes of the first call, by weight and block
        self._blocks: dict[str, set[int]] = {}  # of stacks, which the run has come to

    def rows(self, weight: str, size: int, block: Block | None) -> Tensor:
        """Return the channels (size,) that the rows of a weight produce: fresh ones for the first call."""
        blocks = 1 if block is None else block.blocks
        if weight not in self._rows or len(self._rows[weight]) != size * blocks:
            self._rows[weight] = self._same.fresh(size * blocks)
        rows = self._rows[weight]
        return rows if block is None else rows[block.index * size : (block.index + 1) * size]

    def add(self, layer: Layer, block: Block | None) -> None:
        """Note a call; of a stack the layer has the slots of one block."""
        names = list(dict.fromkeys(axis.tensor for axis in layer.axes))
        before = self._of_weight.get(names[0])
        if not self._shared.isdisjoint(names):
            self._refuse_again(layer, next(n for n in names if n in self._shared))
        elif before is not None and _places(before.axes) == _places(layer.axes):
            self._join(before, layer, block)
        elif not self.used.isdisjoint(names):
            self._refuse_again(layer, next(n for n in names if n in self.used))
        else:
            self._of_weight[names[0]] = whole = layer if block is None else self._stack(layer, block)
            self.layers.append(whole)
            self._join(whole, layer, block)
        self.used.update(names)

    def _refuse_again(self, layer: Layer, name: str) -> None:
        """Refuse everything that a parameter touches."""
        self.layers.append(layer)
        names = {axis.tensor for axis in layer.axes}
        users = (other.axes for other in self.layers if any(axis.tensor in names for axis in other.axes))
        met = f"the parameter {name} is used more than once"
        self._refuse((axis.slots for axes in users for axis in axes), met, "give each use a parameter of its own")

    def _stack(self, layer: Layer, block: Block) -> Layer:
        """Return the layer of all blocks, with fresh channels but for the rows."""
        axes = []
        for axis in layer.axes:
            is_row = axis.role is Role.ROW
            slots = self._rows[layer.weight] if is_row else self._same.fresh(len(axis.slots) * block.blocks)
            axes.append(replace(axis, slots=slots, blocks=block.blocks))
        return replace(layer, axes=tuple(axes))

    def _join(self, whole: Layer, layer: Layer, block: Block | None) -> None:
        """Make one what a call reads and puts out, and what the layer does."""
        if block is not None:
            self._blocks.setdefault(whole.axes[0].tensor, set()).add(block.index)
        key = (whole.axes[0].tensor, 0 if block is None else block.index)
        first = self._calls.setdefault(key, layer.axes)
        for of_whole, of_first, axis in zip(whole.axes, first, layer.axes, strict=True):
            slots = of_whole.slots if block is None else of_whole.slots.reshape(block.blocks, -1)[block.index]
            if slots is not axis.slots:
                self._same.union(slots, axis.slots)
                self._refuse_unlike(axis, of_first)

    def _refuse_unlike(self, axis: Axis, first: Axis) -> None:
        """Refuse channels where another call of the layer has none."""
        unlike = (axis.slots < 0) != (first.slots < 0)
        if bool(unlike.any()):
            met = f"{axis.tensor} is called several times, also on what has no channels"
            self._refuse((axis.slots[unlike], first.slots[unlike]), met, "use another layer there")

    def complete(self, equal_parts: list[EqualParts], reshapes: list[tuple[str, Tensor]]) -> None:
        """Let the channels of blocks that the run left out meet as those of the others have done.

        Args:
            equal_parts: where channels are cut, to which those of the blocks are added.
            reshapes: likewise.
        """
        left = {name: self._blocks[name] for name in self._blocks if len(self._blocks[name]) < self._size(name)}
        images: dict[int, np.ndarray] = {}
        roots = self._same.roots() if left else np.empty(0)
        for name in sorted(left, key=lambda name: not len(self._of_weight[name].row_slots)):  # producers first
            layer, met = self._of_weight[name], left[name]
            if len(met) == 1 and len(layer.row_slots):
                seen = f"a single one of the {self._size(name)} blocks of {name} has run"
                self._refuse((axis.slots for axis in layer.axes), seen, "trace with more samples")
                continue
            for block in sorted(set(range(self._size(name))) - met):
                image = images.setdefault(block, np.full(len(roots), NONE))
                self._complete(layer, block, sorted(met), roots, image)
        for image in images.values():
            moved = [(cut, _moved(cut.parts, roots, image)) for cut in equal_parts]
            equal_parts += [replace(cut, parts=parts) for cut, parts in moved if parts is not None]
            laid = [(where, _moved(labels, roots, image)) for where, labels in reshapes]
            reshapes += [(where, labels) for where, labels in laid if labels is not None]
        for axes in (self._of_weight[name].axes for name in self._blocks):
            for slots in {id(axis.slots): axis.slots for axis in axes}.values():
                equal_parts.append(EqualParts(axes[0].tensor, slots.reshape(axes[0].blocks, -1)))

    def _size(self, name: str) -> int:
        return self._of_weight[name].axes[0].blocks

    def _complete(self, layer: Layer, block: int, met: Sequence[int], roots: np.ndarray, image: np.ndarray) -> None:
        """Join the channels of one block with those that the first block has in common with others, or their images."""
        slots = [axis.slots.reshape(axis.blocks, -1) for axis in layer.axes]
        others = np.concatenate([roots[of_axis[list(met[1:])].numpy().ravel()] for of_axis in slots])
        for of_axis in slots:
            first, mine = roots[of_axis[met[0]].numpy()], of_axis[block].numpy()
            shared = np.isin(first, others)
            if not len(layer.row_slots):  # followers
                shared |= image[first] < 0
            self._same.union(torch.from_numpy(first[shared]), torch.from_numpy(mine[shared]))
            first, mine = first[~shared], mine[~shared]
            new = image[first] < 0
            image[first[new]] = mine[new]
            self._same.union(torch.from_numpy(image[first]), torch.from_numpy(mine))


def _places(axes: Iterable[Axis]) -> list[tuple[str, int, Role]]:
    return [(axis.tensor, axis.dim, axis.role) for axis in axes]


def _moved(labels: Tensor, roots: np.ndarray, image: np.ndarray) -> Tensor | None:
    """Return labels with the images of channels in their places, None if they have none."""
    numbers = labels.numpy()
    images = np.where(numbers >= 0, image[roots[numbers]], NONE)
    return torch.from_numpy(np.where(images >= 0, images, numbers)) if (images >= 0).any() else None
