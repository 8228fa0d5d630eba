"""Functions with a weight: producers and consumers, and the followers between them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Operation, Role
from nni_s3d.growth.graph.functions import Kind, batch_norm_arguments, functions
from nni_s3d.growth.graph.tracer import FunctionCall, Tracer, registry

RULES, rule = registry()


@rule("linear")
def _linear(
    t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    return _weighted(t, call, out, -1, input, weight, bias)


@rule("conv1d", "conv2d", "conv3d")
def _conv(
    t: Tracer,
    call: FunctionCall,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Any:
    dim = input.dim() - weight.dim() + 1
    if groups == input.shape[dim] > 1:
        return _depthwise(t, call, out, dim, input, weight, bias)
    return _weighted(t, call, out, dim, input, weight, bias, groups)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(
    t: Tracer,
    call: FunctionCall,
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
    if groups == 1:
        return _weighted(t, call, out, dim, input, weight, bias, row=1)
    if groups == input.shape[dim] and weight.shape[1] == 1:
        return _depthwise(t, call, out, dim, input, weight, bias)
    _work(t, call, input, input.shape[dim], weight)
    return t.refuse_inputs(call.name, (input,), f"its channels enter a grouped {call.name} ({t.owner(weight)})")


def _weighted(
    t: Tracer,
    call: FunctionCall,
    out: Tensor,
    dim: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    blocks: int = 1,
    row: int = 0,
) -> Any:
    """Consume the channels of the input and produce fresh ones; `row` is the dimension of the weight's rows."""
    rows, columns = t.same.fresh(weight.shape[row]), t.along(input, dim)
    applied = out if row == 0 else input  # a transposed convolution applies its weight at every position of its input
    _work(t, call, applied, applied.shape[dim], weight)
    weight_name, bias_name = t.owner(weight), t.owner(bias)
    labels = _along_dim(rows, out, dim)
    if weight_name is None or (bias is not None and bias_name is None):
        t.refuse_inputs(
            call.name, (input,), f"its channels enter a {call.name} whose weight is not a parameter of the model"
        )
        t.refuse([rows], f"the weight of its {call.name} is not a parameter of the model")
        return labels
    axes = [Axis(weight_name, row, Role.ROW, rows)]
    if bias_name is not None:
        axes.append(Axis(bias_name, 0, Role.ROW, rows))
    if columns is None:
        t.refuse_inputs(call.name, (input,), f"{weight_name} reads it along another dimension than its channels")
    else:
        axes.append(Axis(weight_name, 1 - row, Role.COLUMN, columns, blocks))
    if blocks > 1:
        t.note_equal_parts(weight_name, rows, blocks)
        if columns is not None:
            t.note_equal_parts(weight_name, columns, blocks)
    t.add_layer(call.name, (weight_name, bias_name), axes)
    return labels


def _depthwise(
    t: Tracer, call: FunctionCall, out: Tensor, dim: int, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Any:
    """Follow the channels of the input: each has filters of its own."""
    _work(t, call, out, weight.shape[0], weight)
    channels, weight_name = t.along(input, dim), t.owner(weight)
    if channels is None or (channels < 0).any():
        return t.refuse_inputs(call.name, (input,), f"{weight_name} is depthwise over something else than channels")
    slots = channels.repeat_interleave(weight.shape[0] // channels.numel())
    return _follow(t, call, out, dim, slots, weight, bias)


@rule(*functions(Kind.BATCH_NORM))
def _batch_norm(t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    norm = batch_norm_arguments(call.func, args, kwargs)
    slots = t.along(input, 1)
    t.operations.append(Operation(call.name, out[:, :1].numel() // t.samples, slots=slots))
    if norm["running_mean"] is None or norm["training"]:
        return t.refuse_inputs(call.name, (input,), "its batch norm takes the statistics of the batch")
    if slots is None:
        return t.refuse_inputs(call.name, (input,), "its batch norm runs over another dimension than its channels")
    return _follow(t, call, out, 1, slots, *(norm[key] for key in ("weight", "bias", "running_mean", "running_var")))


@rule(*functions(Kind.INSTANCE_NORM))
def _instance_norm(
    t: Tracer,
    call: FunctionCall,
    out: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: object,
    **__: object,
) -> Any:
    slots = t.along(input, 1)
    t.operations.append(Operation("batch_norm", out[:, :1].numel() // t.samples, slots=slots))
    if slots is None:
        return t.refuse_inputs(call.name, (input,), "its instance norm runs over another dimension than its channels")
    return _follow(t, call, out, 1, slots, weight, bias, running_mean, running_var)


@rule(*functions(Kind.MIXING_NORM))
def _mixing_norm(t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, *_: object, **__: object) -> Any:
    """A norm over several channels, or over a number of them that the code says."""
    return t.refuse_inputs(call.name, (input,), f"{call.name} mixes its channels")


@rule(*functions(Kind.PRELU))
def _prelu(t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, weight: Tensor) -> Any:
    t.activation_work(call.name, out, t.labels(input))
    if weight.numel() == 1:
        return t.labels(input)
    slots = t.along(input, 1)
    if slots is None:
        return t.refuse_inputs(call.name, (input,), "its PReLU runs over another dimension than its channels")
    return _follow(t, call, out, 1, slots, weight)


def _follow(t: Tracer, call: FunctionCall, out: Tensor, dim: int, slots: Tensor, *followers: Tensor | None) -> Any:
    """Hand the channels on through a layer with one entry per channel in each of its tensors."""
    names = [t.owner(tensor) for tensor in followers if tensor is not None]
    known = [n for n in names if n is not None]
    if len(known) < len(names):
        return t.refuse([slots], f"its channels enter a {call.name} whose tensors are not the model's own")
    if known:
        t.add_layer(call.name, (t.owner(x) for x in followers[:2]), [Axis(n, 0, Role.FOLLOW, slots) for n in known])
    return _along_dim(slots, out, dim)


def _along_dim(slots: Tensor, out: Tensor, dim: int) -> Tensor:
    """Return labels that run along one dimension of `out`."""
    shape = [1] * out.dim()
    shape[dim] = slots.numel()
    return slots.reshape(shape)


def _work(t: Tracer, call: FunctionCall, applied: Tensor, channels: int, weight: Tensor) -> None:
    """Note that a weight is applied once for every position of a tensor with this many channels."""
    t.operations.append(Operation(call.name, applied.numel() // (t.samples * channels), weight=t.owner(weight)))
