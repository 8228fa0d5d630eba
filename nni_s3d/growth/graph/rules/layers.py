"""Functions with a weight: producers and consumers, and the followers between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Role
from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.rules.along_positions import pass_along
from nni_s3d.growth.graph.rules.weighted import Weighted, produce
from nni_s3d.growth.graph.weight_parts import weight_parts

RULES, rule = rule_table()
FIRST = "move the channels to dimension 1 first (movedim)"


@rule("linear")
def _linear(
    notes: Notes, call: TracedCall, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    if weight.dim() == 1:
        notes.note_products(call.name, input.numel())
        met = "its channels enter a linear whose weight is a vector"
        return notes.refuse_inputs(call.name, (input,), met, "give it one row")
    layer = Weighted(call.name, input, weight, bias, out, -1)
    if (passed := pass_along(notes, layer)) is not None:
        return passed
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
    stride: int | Sequence[int] = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Any:
    layer = Weighted(call.name, input, weight, bias, out, input.dim() - weight.dim() + 1, groups=groups)
    if (passed := pass_along(notes, layer, stride)) is not None:
        return passed
    layer.note_cost(notes, applied=out)
    if layer.is_depthwise:
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
    dim = input.dim() - weight.dim() + 1
    layer = Weighted(call.name, input, weight, bias, out, dim, row=1, column=0, groups=groups)
    layer.note_cost(notes, applied=input)  # the weight is applied at every position of the input
    if layer.is_depthwise:
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
        notes.refuse(
            [rows], "the table of its embedding is computed, a buffer, or changed by max_norm", "keep it in a parameter"
        )
    else:
        notes.add_layer(call.name, [table.name], [Axis(table.name, 1, Role.ROW, rows)])
    return notes.spread(rows, out.dim(), -1)


def _depthwise(notes: Notes, layer: Weighted, filters: int) -> Any:
    """Follow the channels of the input: each has some filters of its own."""
    channels = notes.along(layer.input, layer.dim)
    if channels is None or (channels < 0).any():
        reason = f"{notes.owner(layer.weight) or layer.function} is depthwise over something else than channels"
        return notes.refuse_inputs(layer.function, (layer.input,), reason, "let it run over the channels of a layer")
    slots = channels if filters == 1 else channels.repeat_interleave(filters)
    labels, weight = notes.spread(slots, layer.out.dim(), layer.dim), layer.weight
    followers = [(layer.bias, 0)]
    if notes.own.sources(weight) and len(weight) == len(slots):
        followers.insert(0, (weight, 0))
    elif notes.own.sources(weight):  # a transposed one has the filters of a channel along another dimension
        follow(notes, layer.function, channels, [(weight, 0)], channels)
    elif (parts := weight_parts(notes.own, weight, 0, 1, notes.parameters)) is not None and parts.name in parts.rows:
        notes.add_followers(layer.function, slots, [*parts.rows.items(), *parts.copied_rows.items()])
    elif not _same_for_all(weight, len(channels)):
        reason = f"its channels enter a {layer.function} whose filters are no tensors of the model"
        return notes.refuse_inputs(layer.function, (layer.input,), reason, "keep them in a parameter or a buffer")
    return follow(notes, layer.function, slots, followers, labels)


def _same_for_all(weight: Tensor, channels: int) -> bool:
    """Whether every channel has the same filters, as many as its share of the first dimension."""
    by_channel = weight.detach().unflatten(0, (channels, -1))
    return bool((by_channel == by_channel[:1]).all())


@rule(*functions(Kind.PRELU))
def _prelu(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, weight: Tensor) -> Any:
    notes.note_activation(call.name, out, notes.labels(input))
    if weight.numel() == 1:
        return notes.labels(input)
    slots = notes.along(input, 1)
    if slots is None:
        return notes.refuse_inputs(
            call.name, (input,), "its PReLU runs over another dimension than its channels", FIRST
        )
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
            met = f"its channels enter a {function} whose tensors are not the model's own"
            return notes.refuse([slots], met, "keep them in parameters or buffers")
        entries += [(source.name, source.dims[dim]) for source in sources]
    notes.add_followers(function, slots, entries)
    return labels
