"""Functions with a weight: producers and consumers, and the followers between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nni_s3d.growth.graph.channels import Axis, Operation, Role
from nni_s3d.growth.graph.functions import Kind, batch_norm_arguments, functions
from nni_s3d.growth.graph.notes import Notes
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
    rows, columns = notes.same.fresh(layer.weight.shape[layer.row]), notes.along(layer.input, layer.dim)
    labels = notes.spread(rows, layer.out.dim(), layer.dim)
    weight, bias = notes.owner(layer.weight), notes.owner(layer.bias)
    if weight is None or (layer.bias is not None and bias is None):
        computed = f"{layer.function} whose weight is not a parameter of the model"
        notes.refuse_inputs(layer.function, (layer.input,), f"its channels enter a {computed}")
        notes.refuse([rows], f"the weight of its {layer.function} is not a parameter of the model")
        return labels
    if not all(isinstance(tensor, nn.Parameter) for tensor in (layer.weight, layer.bias) if tensor is not None):
        notes.refuse([rows], f"the weight or bias of its {layer.function} is a buffer, not a parameter")
    axes = [Axis(weight, layer.row, Role.ROW, rows)]
    if bias is not None:
        axes.append(Axis(bias, layer.bias_row, Role.ROW, rows))
    if columns is None:
        notes.refuse_inputs(layer.function, (layer.input,), _reason_of_columns(notes, layer))
    else:
        axes.append(Axis(weight, layer.column, Role.COLUMN, columns, blocks))
    if blocks > 1:
        notes.note_equal_parts(weight, rows, blocks)
        if columns is not None:
            notes.note_equal_parts(weight, columns, blocks)
    notes.add_layer(layer.function, (weight, bias), axes)
    return labels


def _reason_of_columns(notes: Notes, layer: Weighted) -> str:
    """Say why the columns of a weight do not stand for channels."""
    labels, weight = notes.labels(layer.input), notes.owner(layer.weight)
    assert labels is not None
    together, rest = divmod(labels.numel(), labels.shape[layer.dim])
    if labels.shape[layer.dim] > 1 and not rest:
        reads = f"{together} of its channels make one of those that {weight} reads"
        return f"{reads}: they would have to grow together, which has no rule"
    return f"{weight} reads it along another dimension than its channels"


def _depthwise(notes: Notes, layer: Weighted) -> Any:
    """Follow the channels of the input: each has filters of its own."""
    channels = notes.along(layer.input, layer.dim)
    if channels is None or (channels < 0).any():
        reason = f"{notes.owner(layer.weight)} is depthwise over something else than channels"
        return notes.refuse_inputs(layer.function, (layer.input,), reason)
    filters = len(layer.weight) // channels.numel()  # of each channel
    slots = channels if filters == 1 else channels.repeat_interleave(filters)
    followers = [(layer.weight, 0), (layer.bias, 0)]
    return follow(notes, layer.function, slots, followers, notes.spread(slots, layer.out.dim(), layer.dim))


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
    axes, parameters = [], []
    for tensor, dim in followers:
        if tensor is None:
            continue
        name = notes.owner(tensor)
        if name is None:
            return notes.refuse([slots], f"its channels enter a {function} whose tensors are not the model's own")
        axes.append(Axis(name, dim, Role.FOLLOW, slots))
        if isinstance(tensor, nn.Parameter):
            parameters.append(name)
    if axes:
        notes.add_layer(function, parameters, axes)
    return labels
