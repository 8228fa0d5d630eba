"""What each function does to the labels of its inputs: the rules of the trace.

A rule takes the tracer, the function's name, its output and its arguments, and returns the labels of the output. It
notes the layers and the work that it sees, and seals what it cannot follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.channels import Axis, Role, Work
from nni_s3d.growth.tracing import Rule, Tracer

RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


# -- functions with a weight -----------------------------------------------------------------------------------------


@_rule("linear")
def _linear(t: Tracer, name: str, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _weighted(t, name, out, -1, input, weight, bias)


@_rule("conv1d", "conv2d", "conv3d")
def _conv(
    t: Tracer,
    name: str,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Tensor | None:
    dim = input.dim() - weight.dim() + 1
    if groups == 1:
        return _weighted(t, name, out, dim, input, weight, bias)
    if groups == input.shape[dim]:
        return _depthwise(t, name, out, dim, input, weight, bias)
    _work(t, name, out, out.shape[dim], weight)
    return t.seal_inputs(name, (input,), f"its channels enter a grouped {name} ({t.owner(weight)})")


def _weighted(
    t: Tracer, name: str, out: Tensor, dim: int, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Consume the channels of the input and produce fresh ones."""
    rows, columns = t.same.fresh(weight.shape[0]), t.along(input, dim)
    _work(t, name, out, weight.shape[0], weight)
    weight_name, bias_name = t.owner(weight), t.owner(bias)
    labels = _along_dim(rows, out, dim)
    if weight_name is None or (bias is not None and bias_name is None):
        t.seal_inputs(name, (input,), f"its channels enter a {name} whose weight is not a parameter of the model")
        t.seal([rows], f"the weight of its {name} is not a parameter of the model")
        return labels
    axes = [Axis(weight_name, 0, Role.ROW, rows)]
    if bias_name is not None:
        axes.append(Axis(bias_name, 0, Role.ROW, rows))
    if columns is None:
        t.seal_inputs(name, (input,), f"{weight_name} reads it along another dimension than its channels")
    else:
        axes.append(Axis(weight_name, 1, Role.COLUMN, columns))
    t.add_layer(name, (weight_name, bias_name), axes)
    return labels


def _depthwise(
    t: Tracer, name: str, out: Tensor, dim: int, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor | None:
    """Follow the channels of the input: each has filters of its own."""
    _work(t, name, out, weight.shape[0], weight)
    channels, weight_name = t.along(input, dim), t.owner(weight)
    if channels is None or (channels < 0).any():
        return t.seal_inputs(name, (input,), f"{weight_name} is depthwise over something else than channels")
    slots = channels.repeat_interleave(weight.shape[0] // channels.numel())
    return _follow(t, name, out, dim, slots, weight, bias)


@_rule("batch_norm")
def _batch_norm(
    t: Tracer,
    name: str,
    out: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: object,
    **__: object,
) -> Tensor | None:
    slots = t.along(input, 1)
    t.works.append(Work(name, out[:, :1].numel() // t.samples, slots=slots))
    if running_mean is None:
        return t.seal_inputs(name, (input,), "its batch norm keeps no running statistics")
    if slots is None:
        return t.seal_inputs(name, (input,), "its batch norm runs over another dimension than its channels")
    return _follow(t, name, out, 1, slots, weight, bias, running_mean, running_var)


@_rule("prelu")
def _prelu(t: Tracer, name: str, out: Tensor, input: Tensor, weight: Tensor) -> Tensor | None:
    _activation_work(t, name, out, t.labels(input))
    if weight.numel() == 1:
        return t.labels(input)
    slots = t.along(input, 1)
    if slots is None:
        return t.seal_inputs(name, (input,), "its PReLU runs over another dimension than its channels")
    return _follow(t, name, out, 1, slots, weight)


def _follow(t: Tracer, name: str, out: Tensor, dim: int, slots: Tensor, *followers: Tensor | None) -> Tensor | None:
    """Hand the channels on through a layer with one entry per channel in each of its tensors."""
    names = [t.owner(tensor) for tensor in followers if tensor is not None]
    known = [n for n in names if n is not None]
    if len(known) < len(names):
        return t.seal([slots], f"its channels enter a {name} whose tensors are not the model's own")
    if known:
        t.add_layer(name, (t.owner(x) for x in followers[:2]), [Axis(n, 0, Role.FOLLOW, slots) for n in known])
    return _along_dim(slots, out, dim)


# -- functions without a weight --------------------------------------------------------------------------------------

_ACTIVATIONS = (
    "relu relu6 hardtanh leaky_relu rrelu threshold hardswish hardsigmoid elu selu celu gelu silu mish softplus "
    "softsign sigmoid logsigmoid tanh tanhshrink hardshrink softshrink"
).split()
_UNARY = (
    "neg abs exp log log1p expm1 sqrt rsqrt square reciprocal sin cos erf clone contiguous detach float double half "
    "bfloat16 to dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout identity"
).split()
_BINARY = "add sub mul div truediv pow iadd isub imul idiv itruediv radd rsub rmul rdiv rtruediv rpow".split()
_POOLS = {
    f"{kind}{n}d": n
    for n in (1, 2, 3)
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool")
}


@_rule(*_ACTIVATIONS, *_UNARY)
def _elementwise(t: Tracer, name: str, out: Tensor, input: Tensor, *_: object, **__: object) -> Tensor | None:
    labels = t.labels(input)
    if name in _ACTIVATIONS:
        _activation_work(t, name, out, labels)
    return labels


@_rule(*_BINARY)
def _binary(t: Tracer, name: str, out: Tensor, input: object, other: object, **_: object) -> Tensor | None:
    first, second = (_aligned(t, x, out) for x in (input, other))
    if first is None or second is None:
        return first if second is None else second
    narrow, wide = _stretched(t, (input, other), (first, second))
    if narrow:
        t.seal_inputs(name, narrow, f"{name} stretches it over other channels")
        return wide[0].clamp(min=-1) if len(wide) == 1 else None
    first, second = torch.broadcast_tensors(first, second)
    foreign = (first == _FOREIGN) | (second == _FOREIGN)
    if foreign.any():
        t.seal([first[foreign], second[foreign]], f"{name} joins it with a tensor that does not grow with it")
    pairs = torch.stack([first.flatten(), second.flatten()])[:, ((first >= 0) & (second >= 0)).flatten()]
    for a, b in pairs.unique(dim=1).T.tolist():
        t.same.union(a, b)
    return torch.maximum(first, second).clamp(min=-1)


def _stretched(
    t: Tracer, operands: tuple[Any, Any], labels: tuple[Tensor, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the operands that broadcasting repeats along the other's channels, and the labels of those channels."""
    narrow, wide = [], []
    for operand, other in zip(operands, reversed(labels), strict=True):
        shape = (1,) * (other.dim() - operand.dim()) + operand.shape
        if t.labels(operand) is not None and any(n == 1 < m for n, m in zip(shape, other.shape, strict=True)):
            narrow.append(operand)
            wide.append(other)
    return narrow, wide


_FOREIGN = -2  # a slot with an entry of its own that belongs to no channel


def _aligned(t: Tracer, operand: object, out: Tensor) -> Tensor | None:
    """Return labels with the dimensions of `out`; entries that would have to grow but cannot are foreign."""
    labels = t.labels(operand)
    if not isinstance(operand, Tensor) or (labels is None and operand.numel() == 1):
        return None
    if labels is None:
        labels = torch.full((1,) * operand.dim(), -1)
    pad = (1,) * (out.dim() - operand.dim())
    labels = labels.reshape(pad + labels.shape)
    wide = torch.tensor([size > 1 for size in pad + operand.shape])
    if bool((labels < 0).any()) and bool(wide[1:].any()):
        # Without channels, only the batch and dimensions of size one are harmless beside channels.
        shape = [s if d else 1 for d, s in enumerate(pad + operand.shape)]
        labels = labels.expand(shape).clone()
        labels[labels < 0] = _FOREIGN
    return labels


@_rule(*_POOLS)
def _pool(t: Tracer, name: str, out: Tensor, input: Tensor, *_: object, **__: object) -> Tensor | None:
    labels = t.labels(input)
    if labels is not None and any(size > 1 for size in labels.shape[-_POOLS[name] :]):
        return t.seal_inputs(name, (input,), f"{name} pools across its channels")
    return labels


@_rule("mean", "sum", "amax", "amin")
def _reduce(
    t: Tracer, name: str, out: Tensor, input: Tensor, dim: Any = None, keepdim: bool = False, **_: object
) -> Tensor | None:
    labels = t.labels(input)
    if labels is None:
        return None
    dims = [d % labels.dim() for d in (range(labels.dim()) if dim is None else [dim] if isinstance(dim, int) else dim)]
    kept = [n for d, n in enumerate(input.shape) if d and d not in dims]
    # The labels of a single channel do not say which way it runs: a dimension of size one must be left for it.
    if any(labels.shape[d] > 1 for d in dims) or (labels.numel() == 1 and 1 not in kept):
        return t.seal_inputs(name, (input,), f"{name} reduces over its channels")
    return labels.amax(tuple(dims), keepdim)


@_rule("flatten", "reshape", "view", "squeeze", "unsqueeze")
def _reshape(t: Tracer, name: str, out: Tensor, input: Tensor, *args: object, **kwargs: object) -> Tensor | None:
    labels = t.labels(input)
    if labels is None:
        return None
    return _compressed(labels.expand(input.shape).reshape(out.shape))


def _compressed(labels: Tensor) -> Tensor:
    """Drop the dimensions along which labels do not change."""
    for dim in range(labels.dim()):
        first = labels.narrow(dim, 0, 1)
        if torch.equal(first.expand_as(labels), labels):
            labels = first
    return labels


def _along_dim(slots: Tensor, out: Tensor, dim: int) -> Tensor:
    """Return labels that run along one dimension of `out`."""
    shape = [1] * out.dim()
    shape[dim] = slots.numel()
    return slots.reshape(shape)


def _work(t: Tracer, name: str, out: Tensor, rows: int, weight: Tensor) -> None:
    t.works.append(Work(name, out.numel() // (t.samples * rows), weight=t.owner(weight)))


def _activation_work(t: Tracer, name: str, out: Tensor, labels: Tensor | None) -> None:
    slots = torch.full((1,), -1) if labels is None else labels.flatten()
    t.works.append(Work(name, out.numel() // (t.samples * slots.numel()), slots=slots))
