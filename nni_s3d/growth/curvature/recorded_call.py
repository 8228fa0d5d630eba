"""One call of a function, to be made again with other tensors in the places of those that matter."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from nni_s3d.growth.curvature.second_derivatives import twice_differentiable
from nni_s3d.growth.curvature.smoothing import KEEP_INPUT, elementwise_name, is_smoothed, smoothed
from nni_s3d.growth.graph.functions import batch_norm_arguments, canonical_name

# Derivatives may lie in memory otherwise than the values do.
_LAID_OUT: dict[str, Callable[..., Any]] = {"view": Tensor.reshape, "view_as": Tensor.reshape_as}


class RecordedCall:
    """A function and its arguments, of which `tensors` are kept out: calling the object takes them or others.

    It changes nothing in place; `target` is the tensor that the function would have changed. Batch norms are affine
    functions, and piecewise-linear activations have a second derivative.

    Args:
        func: the function.
        name: its canonical name.
        args: the arguments of the call.
        kwargs: its keywords.
        beta: sharpness of the softplus that lends piecewise-linear activations its curvature.
        matters: tells the tensors that are kept out.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        beta: float,
        matters: Callable[[object], bool],
    ) -> None:
        self.name, self.arguments = name, len(args) + len(kwargs)
        self.target = changed_in_place(func, args, kwargs)
        self._lends = True
        self.func, self._beta, self.smoothed = func, beta, is_smoothed(name, args, kwargs)
        flat, self._spec = pytree.tree_flatten((args, kwargs))
        self._places = [i for i, x in enumerate(flat) if matters(x)]
        self.tensors: list[Tensor] = [flat[i] for i in self._places]
        self.leads = self._places[:1] == [0]  # whether the first argument is among them
        self.constants = [
            x for i, x in enumerate(flat) if i not in self._places and isinstance(x, Tensor) and x.is_floating_point()
        ]
        self._copied = self.target is not None and (not self.smoothed or name in KEEP_INPUT)
        self._flat = [None if i in self._places else x for i, x in enumerate(flat)]
        if self.target is not None and not any(x is self.target for x in self.tensors):  # a constant, about to change
            self._flat = [x.clone() if x is self.target else x for x in self._flat]

    def __call__(self, *tensors: Tensor) -> Any:
        """Call the function with these tensors."""
        filled = list(self._flat)
        for i, x in zip(self._places, tensors, strict=True):
            filled[i] = x
        args, kwargs = pytree.tree_unflatten(filled, self._spec)
        if self.name == "batch_norm":
            norm = batch_norm_arguments(self.func, args[1:], kwargs)
            return _affine(args[0] if args else norm["input"], norm)
        if self._copied and args:
            args = (args[0].clone(), *args[1:])
        elif self._copied:
            kwargs["input"] = kwargs["input"].clone()
        if self.smoothed:
            return smoothed(self.name, self._beta, args, kwargs)
        if "." in self.name and self._lends:  # registered: it announces itself, and what it calls is not seen
            with SmoothedFunctions(self._beta):
                return getattr(self.func, "__wrapped__", self.func)(*args, **kwargs)
        if self.name in _LAID_OUT and not any(isinstance(x, torch.dtype) for x in args):
            return _LAID_OUT[self.name](*args, **kwargs)
        return twice_differentiable(self.func, self.name)(*args, **kwargs)

    def rest(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments behind the first one, and the keywords; None stands for tensors that are kept out."""
        args, kwargs = pytree.tree_unflatten(list(self._flat), self._spec)
        return args[1:], kwargs

    @property
    def second(self) -> Any:
        """The second positional argument."""
        args, _ = pytree.tree_unflatten(list(self._flat), self._spec)
        return args[1]

    def forget(self) -> None:
        """Keep no tensor alive of those that matter."""
        self.tensors, self.target = [], None

    def by(self, func: Callable[..., Any]) -> RecordedCall:
        """Return the same call of another function, which keeps no tensor alive of those that matter."""
        other = copy.copy(self)
        other.func = func
        other.forget()
        return other

    def unsmoothed(self) -> RecordedCall:
        """Return the same call without a curvature at kinks, which keeps no tensor alive of those that matter."""
        other = self.by(self.func)
        other.smoothed, other._lends, other._copied = False, False, self._copied or self.target is not None
        return other

    def without_bias(self, x: Tensor) -> Tensor:
        """Call a convolution or linear function without its bias, which does not move."""
        filled = [x if i in self._places else y for i, y in enumerate(self._flat)]
        args, kwargs = pytree.tree_unflatten(filled, self._spec)
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        settings = {key: value for key, value in named.items() if key not in ("input", "weight", "bias")}
        out: Tensor = self.func(named["input"], named["weight"], None, *args[3:], **settings)
        return out

    def keeps_shape(self) -> bool:
        """Whether the result of an element-wise function has the shape of the only tensor that is kept out."""
        if len(self.tensors) != 1:
            return False
        shape = self.tensors[0].shape
        # NumPy's, since PyTorch's own imports its symbolic shapes and sympy.
        return self.name == "prelu" or np.broadcast_shapes(shape, *(c.shape for c in self.constants)) == shape


class SmoothedFunctions(TorchFunctionMode):
    """Lends the functions inside of another one their curvature; those that change a tensor in place go without."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self._beta = beta

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = elementwise_name(canonical_name(func), args, kwargs)
        if is_smoothed(name, args, kwargs) and changed_in_place(func, args, kwargs) is None:
            return smoothed(name, self._beta, args, kwargs)
        return func(*args, **kwargs)


def changed_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the tensor that a call changes in place: by the name of the function, or since it is told to."""
    name = getattr(func, "__name__", "")
    if name.startswith("__i") or (name.endswith("_") and not name.endswith("__")) or _is_told_to(func, args, kwargs):
        first = args[0] if args else kwargs.get("input")
        return first if isinstance(first, Tensor) else None
    return None


def _is_told_to(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if "inplace" in kwargs or not any(x is True for x in args):
        return bool(kwargs.get("inplace"))
    try:
        return bool(inspect.signature(func).bind(*args, **kwargs).arguments.get("inplace"))
    except (TypeError, ValueError):  # functions without a signature do not know the word either
        return False


def _affine(x: Tensor, norm: dict[str, Any]) -> Tensor:
    """Batch norm in evaluation mode, as one product and one sum."""
    scale = (norm["running_var"] + norm["eps"]).rsqrt() * (1 if norm["weight"] is None else norm["weight"])
    shift = -norm["running_mean"] * scale + (0 if norm["bias"] is None else norm["bias"])
    shape = (-1,) + (1,) * (x.dim() - 2)
    return torch.addcmul(shift.to(x.dtype).reshape(shape), x, scale.to(x.dtype).reshape(shape))
