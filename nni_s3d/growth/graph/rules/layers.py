"""Functions with a weight: producers and consumers, and the followers between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Operation, Role
from nni_s3d.growth.graph.functions import Kind, batch_norm_arguments, functions
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.weight_parts import WeightParts, weight_parts

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
        positions = applied.numel() // applied.shape[self.dim]
        notes.note_weight(self.function, positions * self.weight.numel(), self.weight)


@rule("linear")
def _linear(
    notes: Notes, call: TracedCall, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    if weight.dim() == 1:
        notes.note_products(call.name, input.numel())
        return notes.refuse_inputs(call.name, (input,), "its channels enter a linear whose weight is a vector")
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
        return _depthwise(notes, layer)
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
    if groups == 1:
        return produce(notes, layer)
    if groups == input.shape[layer.dim] and weight.shape[1] == 1:
        return _depthwise(notes, layer)
    reason = f"its channels enter a grouped {call.name} ({notes.owner(weight)})"
    return notes.refuse_inputs(call.name, (input,), reason)


def produce(notes: Notes, layer: Weighted, blocks: int = 1) -> Any:
    """Consume the channels of the input and produce fresh ones."""
    parts = weight_parts(notes.own, layer.weight, layer.row, layer.column, notes.parameters)
    bias = notes.own.view(layer.bias)
    if parts is None or (layer.bias is not None and bias is None):
        return _refuse_unknown(notes, layer)
    rows, columns = notes.same.fresh(layer.weight.shape[layer.row]), notes.along(layer.input, layer.dim)
    names = [parts.name, *(name for name in parts.rows if name != parts.name)]
    axes = [Axis(name, dim, Role.ROW, rows) for name, dim in parts.rows.items()]
    if bias is not None:
        names.append(bias.name)
        axes.append(Axis(bias.name, layer.bias_row, Role.ROW, rows))
    _refuse_rows(notes, layer, parts, rows, names)
    read = [] if columns is None else _read_axes(parts, columns, blocks)
    if not read:
        notes.refuse_inputs(layer.function, (layer.input,), _why_not_read(parts, columns))
    if blocks > 1:
        for slots in (rows, *(axis.slots for axis in read[:1])):
            notes.note_equal_parts(parts.name, slots, blocks)
    notes.add_layer(layer.function, names, axes + read, parts.norm)
    if parts.is_vector:  # no channel comes out
        return None
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _refuse_unknown(notes: Notes, layer: Weighted) -> Any:
    """Refuse the channels on both sides of a weight that is not made of the model's own tensors alone."""
    rows = notes.same.fresh(layer.weight.shape[layer.row])
    computed = f"{layer.function} whose weight is not a parameter of the model"
    notes.refuse_inputs(layer.function, (layer.input,), f"its channels enter a {computed}")
    notes.refuse([rows], f"the weight of its {layer.function} is not a parameter of the model")
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _refuse_rows(notes: Notes, layer: Weighted, parts: WeightParts, rows: Tensor, names: Iterable[str]) -> None:
    """Refuse rows that are no neurons of their own."""
    if not notes.parameters.keys() >= set(names):
        notes.refuse([rows], f"the weight or bias of its {layer.function} is a buffer, not a parameter")
    elif parts.name not in parts.rows and not parts.is_vector:
        notes.refuse([rows], f"the weight of its {layer.function} is computed so that its rows depend on each other")


def _read_axes(parts: WeightParts, columns: Tensor, blocks: int) -> list[Axis]:
    """Return the axes along the columns of a weight, none where these cannot be multiplied."""
    read = [Axis(name, dim, Role.COLUMN, columns, blocks) for name, dim in parts.columns.items()]
    return read + [Axis(name, dim, Role.FOLLOW, columns) for name, dim in parts.copied.items() if read]


def _why_not_read(parts: WeightParts, columns: Tensor | None) -> str:
    if columns is None:
        return f"{parts.name} reads it along another dimension than its channels"
    return f"it is read by a weight that is computed from {parts.name} so that no column of it can be multiplied alone"


def _depthwise(notes: Notes, layer: Weighted) -> Any:
    """Follow the channels of the input: each has filters of its own."""
    channels = notes.along(layer.input, layer.dim)
    if channels is None or (channels < 0).any():
        reason = f"{notes.owner(layer.weight)} is depthwise over something else than channels"
        return notes.refuse_inputs(layer.function, (layer.input,), reason)
    filters = len(layer.weight) // channels.numel()  # of each channel
    slots = channels if filters == 1 else channels.repeat_interleave(filters)
    labels = notes.spread(slots, layer.out.dim(), layer.dim)
    parts = None if notes.own.sources(layer.weight) else weight_parts(notes.own, layer.weight, 0, 1, notes.parameters)
    if parts is not None and parts.name in parts.rows:
        notes.add_followers(layer.function, slots, list(parts.rows.items()))
        return follow(notes, layer.function, slots, [(layer.bias, 0)], labels)
    return follow(notes, layer.function, slots, [(layer.weight, 0), (layer.bias, 0)], labels)


@rule(*functions(Kind.BATCH_NORM))
def _batch_norm(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    norm = batch_norm_arguments(call.func, args, kwargs)
    slots = _normalised(notes, call, out, input)
    if norm["running_mean"] is None or norm["training"]:
        return notes.refuse_inputs(call.name, (input,), "its batch norm takes the statistics of the batch")
    if slots is None:
        return notes.refuse_inputs(call.name, (input,), "its batch norm runs over another dimension than its channels")
    followers = [(norm[key], 0) for key in ("weight", "bias", "running_mean", "running_var")]
    return follow(notes, call.name, slots, followers, notes.spread(slots, out.dim(), 1))


@rule(*functions(Kind.INSTANCE_NORM))
def _instance_norm(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: object,
    **__: object,
) -> Any:
    slots = _normalised(notes, call, out, input)
    if slots is None:
        reason = "its instance norm runs over another dimension than its channels"
        return notes.refuse_inputs(call.name, (input,), reason)
    followers = [(tensor, 0) for tensor in (weight, bias, running_mean, running_var)]
    return follow(notes, call.name, slots, followers, notes.spread(slots, out.dim(), 1))


def _normalised(notes: Notes, call: TracedCall, out: Tensor, input: Tensor) -> Tensor | None:
    """Note a norm of every channel and return the channels (n,) along dimension 1, None if they run along another."""
    slots = notes.along(input, 1)
    notes.operations.append(Operation(call.name, out.numel() / max(out.shape[1], 1) / notes.samples, slots=slots))
    return slots


@rule(*functions(Kind.MIXING_NORM))
def _mixing_norm(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *_: object, **__: object) -> Any:
    """A norm over several channels, or over a number of them that the code says."""
    return notes.refuse_inputs(call.name, (input,), f"{call.name} mixes its channels")


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
