"""Functions of every element by itself, and sums and products of tensors, whose channels become one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Role
from nni_s3d.growth.graph.functions import KINDS, Kind, functions
from nni_s3d.growth.graph.tracer import FunctionCall, Tracer, registry

RULES, rule = registry()


@rule(*functions(Kind.IDENTITY, Kind.CAST, Kind.ACTIVATION, Kind.ELEMENTWISE))
def _elementwise(t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, *_: object, **__: object) -> Any:
    labels = t.labels(input)
    if KINDS[call.name] is Kind.ACTIVATION:
        t.activation_work(call.name, out, labels)
    return labels


@rule(*functions(Kind.SUM, Kind.PRODUCT, Kind.COMBINATION))
def _binary(t: Tracer, call: FunctionCall, out: Tensor, input: object, other: object, **_: object) -> Any:
    first, second = (_aligned(t, x, y, out) for x, y in ((input, other), (other, input)))
    if first is None or second is None:
        return first if second is None else second
    narrow, wide = _stretched(t, (input, other), (first, second))
    if narrow:
        t.refuse_inputs(call.name, narrow, f"{call.name} stretches it over other channels")
        return wide[0].clamp(min=-1) if len(wide) == 1 else None
    first, second = torch.broadcast_tensors(first, second)
    foreign = (first == _FOREIGN) | (second == _FOREIGN)
    if foreign.any():
        t.refuse([first[foreign], second[foreign]], f"{call.name} joins it with a tensor that does not grow with it")
    t.join(first, second)
    return torch.maximum(first, second).clamp(min=-1)


@rule(*functions(Kind.GLU))
def _glu(t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, dim: int = -1) -> Any:
    labels = t.labels(input)
    if labels is None:
        return None
    halves = labels.expand(
        [n if n > 1 or d != dim % labels.dim() else input.shape[d] for d, n in enumerate(labels.shape)]
    )
    first, second = halves.chunk(2, dim)
    if labels.shape[dim] > 1:
        t.note_equal_parts(call.name, labels.movedim(dim, 0).flatten(), 2)
    t.join(first, second)
    return first


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


def _aligned(t: Tracer, operand: object, partner: object, out: Tensor) -> Tensor | None:
    """Return labels with the dimensions of `out`; entries that would have to grow but cannot are foreign."""
    labels = t.labels(operand)
    if not isinstance(operand, Tensor) or (labels is None and operand.numel() == 1):
        return None
    pad = (1,) * (out.dim() - operand.dim())
    if labels is None:
        labels = _following(t, operand, t.labels(partner), len(pad))
    labels = labels.reshape(pad + labels.shape)
    shape = [s if d and _varies(t, partner, d - out.dim()) else 1 for d, s in enumerate(pad + operand.shape)]
    if bool((labels < 0).all()) and max(shape) > 1:  # entries beside the partner's channels, which belong to none
        labels = torch.full(shape, _FOREIGN)
    elif bool((labels < 0).any()) and bool((labels >= 0).any()):
        shape = [s if d else 1 for d, s in enumerate(pad + operand.shape)]
        labels = labels.expand(shape).clone()
        labels[labels < 0] = _FOREIGN
    return labels


def _varies(t: Tracer, tensor: object, dim: int) -> bool:
    """Whether the channels of a tensor run along a dimension, counted from the end."""
    labels = t.labels(tensor)
    if labels is None or -dim > labels.dim():
        return labels is None and isinstance(tensor, Tensor)
    # The labels of a single channel do not say which way it runs.
    return labels.shape[dim] > 1 or labels.numel() == 1


def _following(t: Tracer, operand: Tensor, partner: Tensor | None, pad: int) -> Tensor:
    """Return the labels of a tensor without any: those of its partner, for a parameter with an entry per channel."""
    name, labels = t.owner(operand), torch.full((1,) * operand.dim(), -1)
    if name is None or partner is None or bool((partner < 0).any()):
        return labels
    varying = [dim for dim, size in enumerate(partner.shape) if size > 1]
    dim = varying[0] - pad if len(varying) == 1 else -1
    if dim < 0 or dim >= operand.dim() or operand.shape[dim] != partner.numel():
        return labels
    t.add_layer("scale", (name,), [Axis(name, dim, Role.FOLLOW, partner.flatten())])
    return partner.reshape([-1 if d == dim else 1 for d in range(operand.dim())])
