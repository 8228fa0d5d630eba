"""Averages over channels as what they are: linear readers of every channel, with the same weight for all.

A mean over channels reads x_i with weight 1/C, which its copies share evenly. So the network is cut there as at any
other consumer, and the statistics that come out are constants for the neurons that went in. Norms and variances are
written with means. The variance is the mean of (x - mu)^2, whose derivative with respect to mu is zero: the neurons
reach it through the squares alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Mean = Callable[[Tensor, Any, bool], Tensor]  # of the input, dimensions, keepdim


def written_with_means(name: str, mean: Mean, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a function of `averages.AVERAGING` does, with means that are taken by another function."""
    return _WRITTEN[name](mean, *args, **{("dim" if key == "axis" else key): x for key, x in kwargs.items()})


def _mean(mean: Mean, input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return mean(input if dtype is None else input.to(dtype), dim, keepdim)


def _layer_norm(
    mean: Mean, input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(_normalised(mean, input - mean(input, dims, True), dims, eps), weight, bias)


def _rms_norm(mean: Mean, input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _affine(_normalised(mean, input, tuple(range(-len(normalized_shape), 0)), eps), weight, None)


def _group_norm(
    mean: Mean, input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    grouped = input.unflatten(1, (num_groups, -1))
    dims = tuple(range(2, grouped.dim()))
    out = _normalised(mean, grouped - mean(grouped, dims, True), dims, eps).flatten(1, 2)
    shape = (-1,) + (1,) * (input.dim() - 2)
    return _affine(out, *(None if x is None else x.reshape(shape) for x in (weight, bias)))


def _normalised(mean: Mean, centred: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    return centred * (mean(centred.square(), dims, True) + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _var_mean(mean: Mean, input: Tensor, *args: Any, keepdim: bool = False, **kwargs: Any) -> tuple[Tensor, Tensor]:
    dim = kwargs.get("dim", next((x for x in args if not isinstance(x, bool)), None))
    keepdim = keepdim or [x for x in args if isinstance(x, bool)][1:] == [True]
    mu = mean(input, dim, True)
    var = mean((input - mu).square(), dim, True)
    return (var, mu) if keepdim else (_squeezed(var, dim), _squeezed(mu, dim))


def _squeezed(x: Tensor, dim: Any) -> Tensor:
    return x.squeeze() if dim in (None, (), []) else x.squeeze(dim)


def _std_mean(mean: Mean, input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    var, mu = _var_mean(mean, input, *args, **kwargs)
    return var.sqrt(), mu


_WRITTEN: dict[str, Callable[..., Any]] = {
    "mean": _mean,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "var_mean": _var_mean,
    "std_mean": _std_mean,
    "var": lambda *args, **kwargs: _var_mean(*args, **kwargs)[0],
    "std": lambda *args, **kwargs: _std_mean(*args, **kwargs)[0],
}
