"""Functions with a weight: producers and consumers, and the followers between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Role
from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.own_tensors import Source
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table

RULES, rule = rule_table()


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

    def note_cost(self, notes: Notes, applied: Tensor) -> None:
        """Note that the weight is applied once at every position of a tensor, the output or the input."""
        if self.dim % self.input.dim() == 0:
            notes.sample_sizes.note_alone(self.input)
        positions = applied.numel() // applied.shape[self.dim]
        notes.note_weight(self.function, positions * self.weight.numel(), self.weight)


@rule("linear")
def _linear(
    notes: Notes, call: TracedCall, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    if weight.dim() == 1:
        notes.note_products(call.name, input.numel())
        return notes.refuse_inputs(call.name, (input,), "its channels enter a linear whose weight is a vector")
    labels, matrix = notes.labels(input), notes.own.view(weight)
    if labels is not None and labels.shape[-1] == 1 < labels.numel() and matrix and matrix.name in notes.buffers:
        # A fixed matrix that mixes positions, as that of a graph does.
        notes.note_products(call.name, out.numel() * input.shape[-1], labels)
        return labels
    layer = Weighted(call.name, input, weight, bias, out, -1)
    layer.note_cost(notes, applied=out)
    return produce(notes, layer)


@rule("conv1d", "conv2d", "conv3d")
def _conv(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Any:
    layer = Weighted(call.name, input, weight, bias, out, input.dim() - weight.dim() + 1)
    layer.note_cost(notes, applied=out)
    if groups == input.shape[layer.dim] > 1:
        return _depthwise(notes, layer, filters=len(weight) // groups)
    return produce(notes, layer, blocks=groups)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    output_padding: object = 0,
    groups: int = 1,
    dilation: object = 1,
) -> Any:
    layer = Weighted(call.name, input, weight, bias, out, input.dim() - weight.dim() + 1, row=1, column=0)
    layer.note_cost(notes, applied=input)  # the weight is applied at every position of the input
    if groups == input.shape[layer.dim] > 1:
        return _depthwise(notes, layer, filters=weight.shape[1])
    return produce(notes, layer, blocks=groups)


@rule(*functions(Kind.EMBEDDING), reads=("input", "weight"))
def _embedding(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    padding_idx: object = None,
    max_norm: object = None,
    *_: object,
    **__: object,
) -> Any:
    """Every column of the table is a neuron, which is linear in it; a table of activations has its rows picked."""
    table, columns = notes.own.view(weight), notes.along(weight, 1)
    if notes.labels(weight) is not None and columns is not None:
        return notes.spread(columns, out.dim(), -1)
    rows = notes.same.fresh(out.shape[-1])
    if table is None or table.name not in notes.parameters or max_norm is not None:
        notes.refuse_inputs(call.name, (weight,))
        notes.refuse([rows], "the table of its embedding is computed, a buffer, or changed by max_norm")
    else:
        notes.add_layer(call.name, [table.name], _axes(table, 1, Role.ROW, rows))
    return notes.spread(rows, out.dim(), -1)


def produce(notes: Notes, layer: Weighted, blocks: int = 1) -> Any:
    """Consume the channels of the input and produce fresh ones."""
    weight, bias = notes.own.view(layer.weight), notes.own.view(layer.bias)
    in_blocks = blocks == 1 or (weight is not None and weight.dims[:2] == (0, 1))
    if weight is None or (layer.bias is not None and bias is None) or not in_blocks:
        return _refuse_computed(notes, layer)
    rows, columns = notes.same.fresh(layer.out.shape[layer.dim]), notes.along(layer.input, layer.dim)
    names = [source.name for source in (weight, bias) if source is not None]
    if not notes.parameters.keys() >= set(names):
        notes.refuse([rows], f"the weight or bias of its {layer.function} is a buffer, not a parameter")
    axes = _axes(weight, layer.row, Role.ROW, rows, blocks) + _axes(bias, layer.bias_row, Role.ROW, rows)
    read = _axes(weight, layer.column, Role.COLUMN, columns, blocks) if columns is not None else []
    if not read:
        notes.refuse_inputs(layer.function, (layer.input,), _why_not_read(notes, layer, weight.name))
    if blocks > 1:
        for slots in (rows, *(axis.slots for axis in read)):
            notes.note_equal_parts(weight.name, slots, blocks)
    notes.add_layer(layer.function, names, axes + read)
    if weight.dims[layer.row] is None:  # a vector of weights: no channel comes out
        return None
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _why_not_read(notes: Notes, layer: Weighted, name: str) -> str:
    labels = notes.labels(layer.input)
    if labels is not None and labels.shape[layer.dim] > 1:
        return f"{name} reads several of its channels as one; they would have to grow together, which has no rule"
    return f"{name} reads it along another dimension than its channels"


def _refuse_computed(notes: Notes, layer: Weighted) -> Any:
    """Refuse the channels on both sides of a weight that is none of the model's tensors as they are."""
    rows = notes.same.fresh(layer.out.shape[layer.dim])
    computed = f"{layer.function} whose weight is not a parameter of the model"
    notes.refuse_inputs(layer.function, (layer.input,), f"its channels enter a {computed}")
    notes.refuse([rows], f"the weight of its {layer.function} is not a parameter of the model")
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _axes(source: Source | None, place: int, role: Role, slots: Tensor, blocks: int = 1) -> list[Axis]:
    """Return the axis of a weight or bias along one dimension of its view, if it has such a dimension.

    Of a weight in blocks, which lie along dimension 0, dimension 1 has the slots of one block.
    """
    dim = None if source is None else source.dims[place]
    return [] if source is None or dim is None else [Axis(source.name, dim, role, slots, blocks if place == 1 else 1)]


def _depthwise(notes: Notes, layer: Weighted, filters: int) -> Any:
    """Follow the channels of the input: each has some filters of its own."""
    channels = notes.along(layer.input, layer.dim)
    if channels is None or (channels < 0).any():
        reason = f"{notes.owner(layer.weight) or layer.function} is depthwise over something else than channels"
        return notes.refuse_inputs(layer.function, (layer.input,), reason)
    slots = channels if filters == 1 else channels.repeat_interleave(filters)
    followers = [(layer.weight, 0), (layer.bias, 0)]
    if len(layer.weight) != len(slots):  # a transposed one has the filters of a channel along another dimension
        follow(notes, layer.function, channels, [followers.pop(0)], channels)
    return follow(notes, layer.function, slots, followers, notes.spread(slots, layer.out.dim(), layer.dim))


@rule(*functions(Kind.PRELU))
def _prelu(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, weight: Tensor) -> Any:
    notes.note_activation(call.name, out, notes.labels(input))
    if weight.numel() == 1:
        return notes.labels(input)
    slots = notes.along(input, 1)
    if slots is None:
        return notes.refuse_inputs(call.name, (input,), "its PReLU runs over another dimension than its channels")
    return follow(notes, call.name, slots, [(weight, 0)], notes.spread(slots, out.dim(), 1))


def follow(
    notes: Notes, function: str, slots: Tensor, followers: Iterable[tuple[Tensor | None, int]], labels: Tensor
) -> Any:
    """Hand channels on through a layer that has one entry per channel along a dimension of each of its tensors.

    Args:
        notes: of the trace.
        function: what the layer calls.
        slots: (n,) the channel of each entry.
        followers: the tensors, or None for those that the layer lacks, and the dimension of each.
        labels: of what comes out.
    """
    entries = []
    for tensor, dim in followers:
        sources = notes.own.sources(tensor)
        if tensor is not None and not sources:
            return notes.refuse([slots], f"its channels enter a {function} whose tensors are not the model's own")
        entries += [(source.name, source.dims[dim]) for source in sources]
    notes.add_followers(function, slots, entries)
    return labels
