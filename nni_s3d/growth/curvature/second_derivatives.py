"""Functions whose second derivative PyTorch gets wrong, written so that it gets it right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return g v / |v|. The backward pass of `torch._weight_norm` takes |v| for a constant (PyTorch 2.14)."""
    out: Tensor = v * (g / torch.norm_except_dim(v, 2, dim))
    return out


_WRITTEN: dict[str, Callable[..., Any]] = {"weight_norm": _weight_norm}


def twice_differentiable(func: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a function, or another one for it that autograd can differentiate twice; `name` is its canonical name."""
    return _WRITTEN.get(name, func)
