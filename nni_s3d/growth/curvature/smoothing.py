"""Give piecewise-linear activations the second derivative of softplus, in any model, without editing it.

Every such activation is a sum of shifted ramps r(x) = max(x, 0). A ramp keeps its true value and first derivative;
its second derivative, which vanishes almost everywhere, is replaced by that of softplus with sharpness beta, a bump of
area one around the kink (the rule of the published S2D code, beta = 3). Autograd does the rest. Functions that people
write activations with, such as clamp, abs and maximum, get the same at their kinks.
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
    return torch.relu(x) + lent(x, beta)


def lent(x: Tensor, beta: float, kink: float | Tensor = 0.0, height: float = 1.0) -> Tensor | float:
    """Return zeros without a slope that have the second derivative of a kink of this height at x = kink."""
    if not torch.is_grad_enabled():
        return 0.0
    at = x.detach()
    if not isinstance(kink, Tensor):
        return (x - at).square() * (bump(at - kink, beta) * (height / 2))
    past, at = x - kink, (x - kink).detach()
    return (past - at).square() * (bump(at, beta) * (height / 2))


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


def _clamp(x: Tensor, beta: float, min: Any = None, max: Any = None) -> Tensor:
    low = min
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        low = min if min is None or max is None else torch.minimum(*(torch.as_tensor(y).to(x) for y in (min, max)))
    elif min is not None and max is not None:  # where they are in the wrong order, the result is the upper one
        low = sorted((min, max))[0]
    out = x.clamp(min, max)
    out = out if low is None else out + lent(x, beta, low)
    return out if max is None else out + lent(x, beta, max, -1)


def _hardshrink(x: Tensor, beta: float, lambd: float = 0.5) -> Tensor:
    return torch.hardshrink(x, lambd) + lent(x, beta, lambd) + lent(x, beta, -lambd, -1)  # and two jumps


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
    "hardshrink": _hardshrink,
    "abs": lambda x, beta: x.abs() + lent(x, beta, height=2),
    "clamp": _clamp,
    "clamp_min": lambda x, beta, min: _clamp(x, beta, min),
    "clamp_max": lambda x, beta, max: _clamp(x, beta, None, max),
    "maximum": lambda x, beta, other: torch.maximum(x, other) + lent(x, beta, other),
    "minimum": lambda x, beta, other: torch.minimum(x, other) + lent(x, beta, other, -1),
}
KEEP_INPUT = {"abs", "clamp", "clamp_min", "clamp_max"}  # whose backward pass wants it as it was
_SAME = {"absolute": "abs", "clip": "clamp", "max": "maximum", "min": "minimum", "fmax": "maximum", "fmin": "minimum"}


def elementwise_name(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the name in `SMOOTHED` of a function that has another name too; any other name as it is."""
    if name in ("max", "min"):  # of two tensors, or along a dimension
        second = args[1] if len(args) > 1 else kwargs.get("other")
        return _SAME[name] if isinstance(second, Tensor) else name
    return _SAME.get(name, name)


def is_smoothed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function has kinks that lend it a curvature: it takes numbers that are not whole, not indices, say."""
    if name not in SMOOTHED:
        return False
    first = args[0] if args else kwargs.get("input")
    return isinstance(first, Tensor) and first.is_floating_point()


def smoothed(name: str, beta: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Compute the activation `name` of `SMOOTHED` with the arguments of the original call, and change nothing."""
    (x, *rest), activation = args or (kwargs.pop("input"),), SMOOTHED[name]
    bound = inspect.signature(activation).bind(x, beta, *rest, **kwargs)
    return activation(*bound.args, **bound.kwargs)
