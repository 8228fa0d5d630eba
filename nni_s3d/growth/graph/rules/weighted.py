"""A weight applied to channels: it reads those of its input by its columns, and its rows produce others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Role
from nni_s3d.growth.graph.layer_notes import Block
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.own_tensors import Source
from nni_s3d.growth.graph.weight_parts import WeightParts, weight_parts

PARAMETER = "keep it in a parameter"


@dataclass(frozen=True)
class Weighted:
    """A weight and a bias applied to an input at every position."""

    function: str
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    out: Tensor
    dim: int  # of the channels, in input and output alike
    row: int = 0  # the dimension of the weight's rows
    column: int = 1  # and of its columns
    bias_row: int = 0
    groups: int = 1

    def note_cost(self, notes: Notes, applied: Tensor) -> None:
        """Note that the weight is applied once at every position of a tensor, the output or the input."""
        if self.dim % self.input.dim() == 0:
            notes.sample_sizes.note_alone(self.input)
        macs, labels = self.macs(applied), notes.labels(self.input)
        if notes.own.stands_for(self.weight) is None and labels is not None and self.is_depthwise:
            notes.note_products(self.function, macs, labels)
        else:
            notes.note_weight(self.function, macs, self.weight)

    def macs(self, applied: Tensor) -> int:
        """Return what a weight multiplies that is applied once at every position of a tensor."""
        return applied.numel() // applied.shape[self.dim] * self.weight.numel()

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has filters of its own."""
        return self.groups == self.input.shape[self.dim] > 1


def produce(notes: Notes, layer: Weighted, blocks: int = 1) -> Any:
    """Consume the channels of the input and produce fresh ones."""
    parts = weight_parts(notes.own, layer.weight, layer.row, layer.column, notes.parameters)
    if parts is None or not parts.fits(layer.row, layer.column, blocks):
        return _refuse_unknown(notes, layer)
    bias = notes.own.view(layer.bias) if parts.block is None else _in_block(notes, layer.bias, parts.block)
    if (layer.bias is not None and bias is None) or (parts.block is not None and blocks > 1):
        return _refuse_unknown(notes, layer)
    rows, columns = notes.rows(parts.name, layer.out.shape[layer.dim], parts.block), notes.along(layer.input, layer.dim)
    names = [parts.name, *(name for name in parts.rows if name != parts.name)]
    axes = [_axis(name, dim, Role.ROW, rows, blocks) for name, dim in parts.rows.items()]
    axes += [Axis(name, dim, Role.FOLLOW, rows) for name, dim in parts.copied_rows.items()]
    if bias is not None:
        names.append(bias.name)
        axes.append(Axis(bias.name, layer.bias_row + (parts.block is not None), Role.ROW, rows))
    _refuse_rows(notes, layer, parts, rows, names)
    read = [] if columns is None else _read_axes(parts, columns, blocks)
    if not read:
        notes.refuse_inputs(layer.function, (layer.input,), *_why_not_read(notes, layer, parts, columns))
    if blocks > 1:
        for slots in (rows, *(axis.slots for axis in read[:1])):
            notes.note_equal_parts(parts.name, slots, blocks)
    if axes or read:
        notes.add_layer(layer.function, names, axes + read, parts.norm, parts.block)
    if parts.is_vector:  # no channel comes out
        for axis in read:
            notes.products.note_reader(axis.tensor, axis.dim, layer.out)
        return None
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _in_block(notes: Notes, bias: Tensor | None, block: Block) -> Source | None:
    """Return the stack that a bias is in, if it is the block that its weight is of another one."""
    stack = notes.own.block(bias)
    if stack is None or (stack.block, len(notes.own.tensor(stack.name))) != (block.index, block.blocks):
        return None
    return stack


def _why_not_read(notes: Notes, layer: Weighted, parts: WeightParts, columns: Tensor | None) -> tuple[str, str]:
    """Say what the channels meet, and what could be written instead."""
    if columns is not None:
        met = f"it is read by a weight that is computed from {parts.name} so that no column can be multiplied alone"
        return met, "give each row a factor"
    labels = notes.labels(layer.input)
    if labels is not None and labels.shape[layer.dim] > 1:
        return f"{parts.name} reads several of its channels as one", "let it read them one by one"
    along = f"{parts.name} reads it along another dimension than its channels"
    if labels is not None and any(size > 1 for size in labels.shape[layer.dim % labels.dim() + 1 :]):
        met = f"{parts.name} slides along its channels and mixes neighbours, so that copies would be new ones"
        return met, "write a layer that reads all channels, as nn.Linear does"
    if labels is None or labels.numel() == 1 or notes.channels_pass:
        return along, "let it sum over the channels (movedim)"
    return along, f"instead of these the rows of {parts.name} can be split"


def _refuse_unknown(notes: Notes, layer: Weighted) -> Any:
    """Refuse the channels on both sides of a weight that is not made of the model's own tensors alone."""
    rows = notes.same.fresh(layer.out.shape[layer.dim])
    computed = f"{layer.function} whose weight is not a parameter of the model"
    notes.refuse_inputs(layer.function, (layer.input,), f"its channels enter a {computed}", PARAMETER)
    notes.refuse([rows], f"the weight of its {layer.function} is not a parameter of the model", PARAMETER)
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _refuse_rows(notes: Notes, layer: Weighted, parts: WeightParts, rows: Tensor, names: Iterable[str]) -> None:
    """Refuse rows that are no neurons of their own."""
    if not notes.parameters.keys() >= set(names):
        notes.refuse([rows], f"the weight or bias of its {layer.function} is a buffer, not a parameter", PARAMETER)
    elif parts.name not in parts.rows and not parts.is_vector:
        met = f"the weight of its {layer.function} is computed so that its rows depend on each other"
        notes.refuse([rows], met, "compute every row by itself, as weight norm does")


def _read_axes(parts: WeightParts, columns: Tensor, blocks: int) -> list[Axis]:
    """Return the axes along the columns of a weight, none where these cannot be multiplied."""
    read = [_axis(name, dim, Role.COLUMN, columns, blocks) for name, dim in parts.columns.items()]
    return read + [Axis(name, dim, Role.FOLLOW, columns) for name, dim in parts.copied.items() if read]


def _axis(name: str, dim: int, role: Role, slots: Tensor, blocks: int) -> Axis:
    """Return an axis; of a weight in blocks, which lie along dimension 0, dimension 1 has the slots of one block."""
    return Axis(name, dim, role, slots, blocks if dim == 1 else 1)
