"""Give piecewise-linear activations the second derivative of softplus, in any model, without editing it.

Every such activation is a sum of shifted ramps r(x) = max(x, 0). A ramp keeps its true value and first derivative;
its second derivative, which vanishes almost everywhere, is replaced by that of softplus with sharpness beta, a bump of
area one around the kink (the rule of the published S2D code, beta = 3). Autograd does the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def ramp(x: Tensor, beta: float) -> Tensor:
    """Return max(x, 0), whose second derivative is that of softplus with sharpness beta.

    The square is zero where it is taken, and so is its slope.
    """
    value = torch.relu(x)
    if not torch.is_grad_enabled():
        return value
    at = x.detach()
    return value + (x - at).square() * (bump(at, beta) / 2)


def bump(x: Tensor, beta: float) -> Tensor:
    """Return the second derivative of softplus with sharpness beta, beta s (1 - s) with s = sigmoid(beta x)."""
    sigmoid = (beta * x).sigmoid_()
    return sigmoid.addcmul_(sigmoid, sigmoid, value=-1).mul_(beta)


def ramp_derivatives(x: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return both derivatives of `ramp`, which autograd finds in more steps; the first one is true or false."""
    return x > 0, bump(x, beta)


def _clipped(x: Tensor, beta: float, low: float, high: float) -> Tensor:
    return low + ramp(x - low, beta) - ramp(x - high, beta)


def _leaky(x: Tensor, beta: float, slope: Any) -> Tensor:
    out: Tensor = slope * x + (1 - slope) * ramp(x, beta)
    return out


def _prelu(x: Tensor, beta: float, weight: Tensor) -> Tensor:
    return _leaky(x, beta, weight.reshape([-1] + [1] * (x.dim() - 2)) if x.dim() > 1 else weight)


def _hardsigmoid(x: Tensor, beta: float) -> Tensor:
    return _clipped(x, beta, -3.0, 3.0) / 6 + 0.5


def _threshold(x: Tensor, beta: float, threshold: float, value: float, inplace: bool = False) -> Tensor:
    # The jump at the threshold has no derivative at all; the kink has one.
    return ramp(x - threshold, beta) + torch.where(x > threshold, x.new_tensor(threshold), x.new_tensor(value))


SMOOTHED: dict[str, Callable[..., Tensor]] = {
    "relu": lambda x, beta, inplace=False: ramp(x, beta),
    "relu6": lambda x, beta, inplace=False: _clipped(x, beta, 0.0, 6.0),
    "hardtanh": lambda x, beta, min_val=-1.0, max_val=1.0, inplace=False: _clipped(x, beta, min_val, max_val),
    "leaky_relu": lambda x, beta, negative_slope=0.01, inplace=False: _leaky(x, beta, negative_slope),
    "prelu": _prelu,
    "hardsigmoid": lambda x, beta, inplace=False: _hardsigmoid(x, beta),
    "hardswish": lambda x, beta, inplace=False: x * _hardsigmoid(x, beta),
    "threshold": _threshold,
    "softshrink": lambda x, beta, lambd=0.5: ramp(x - lambd, beta) - ramp(-x - lambd, beta),
    "rrelu": lambda x, beta, lower=1 / 8, upper=1 / 3, training=False, inplace=False: _leaky(
        x, beta, (lower + upper) / 2
    ),
}


def smoothed(name: str, beta: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Compute the activation `name` of `SMOOTHED` with the arguments of the original call, and change nothing."""
    (x, *rest), activation = args or (kwargs.pop("input"),), SMOOTHED[name]
    bound = inspect.signature(activation).bind(x, beta, *rest, **kwargs)
    return activation(*bound.args, **bound.kwargs)
