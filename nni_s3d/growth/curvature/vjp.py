"""Backward passes through a recorded graph, for cotangents that come later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge


class Vjp:
    """The products of cotangents with the Jacobian of some outputs.

    It keeps the graph, not the outputs, whose values are of no use. All of them end in one scalar whose backward pass
    hands out the cotangents: with gradients given to it, `torch.autograd.grad` imports PyTorch's symbolic shapes and
    sympy, which take longer than a small network's products.
    """

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self._cotangents: list[Tensor | None] = []
        if outputs:
            with torch.enable_grad():
                self._edge = get_gradient_edge(_Distribute.apply(self._cotangents, *outputs))

    def __call__(
        self, cotangents: Sequence[Tensor | None], sources: Sequence[Tensor], create_graph: bool = False
    ) -> list[Any]:
        """Return one tensor per source, None where there is nothing; the graph can be used again."""
        if all(cotangent is None for cotangent in cotangents):
            return [None] * len(sources)
        self._cotangents.extend(cotangents)
        try:
            gradients = torch.autograd.grad(
                [self._edge], sources, retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        finally:
            self._cotangents.clear()
        # Autograd's own zeros cannot be written to, and there is nothing in them.
        return [None if g is None or g._is_zerotensor() else g for g in gradients]


class _Distribute(torch.autograd.Function):
    """A scalar of the outputs; its gradients with respect to them are those of a list."""

    @staticmethod
    def forward(ctx: Any, cotangents: list[Tensor | None], *outputs: Tensor) -> Tensor:
        ctx.cotangents = cotangents  # the list alone: what holds the graph must not be held by it
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.cotangents
