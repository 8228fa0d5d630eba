"""Functions as single steps of autograd: what a step makes of its inputs, and how their derivatives come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Step(Protocol):
    """A function that knows its own derivative."""

    def run(self, *tensors: Tensor) -> Any:
        """Return what the function makes of these tensors."""

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """Take the derivatives of the loss with respect to the floating-point outputs, return those of the inputs."""


def recorded(step: Step, anchor: Tensor, tensors: Sequence[Tensor]) -> Any:
    """Run a step; autograd's backward pass from its outputs to the anchor goes through its `linearize`."""
    structure: dict[str, Any] = {}
    outputs = _Recorded.apply(step, structure, anchor, *tensors)
    return pytree.tree_unflatten(list(outputs), structure["spec"])


class _Recorded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: Step, structure: dict[str, Any], anchor: Tensor, *tensors: Tensor) -> Any:
        ctx.step = step
        ctx.set_materialize_grads(False)
        outputs, structure["spec"] = pytree.tree_flatten(step.run(*tensors))
        ctx.floating = [is_floating(x) for x in outputs]
        ctx.mark_non_differentiable(*(x for x in outputs if isinstance(x, Tensor) and not is_floating(x)))
        return tuple(x.detach() if isinstance(x, Tensor) else x for x in outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        of_floating = [g for g, floating in zip(cotangents, ctx.floating, strict=True) if floating]
        return None, None, None, *ctx.step.linearize(of_floating)


def overwritten(target: Tensor, out: Tensor) -> Tensor:
    """Write a result into the tensor that a function changes in place."""
    written: Tensor = _Overwritten.apply(target, out)
    return written


class _Overwritten(torch.autograd.Function):
    """`copy_`, whose derivative with respect to what was there before is not worked out as zeros."""

    @staticmethod
    def forward(ctx: Any, target: Tensor, out: Tensor) -> Tensor:
        ctx.mark_dirty(target)
        return target.copy_(out)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        return None, *cotangents


def is_floating(x: object) -> bool:
    """Whether this is a tensor that can have a derivative."""
    return isinstance(x, Tensor) and x.is_floating_point()
