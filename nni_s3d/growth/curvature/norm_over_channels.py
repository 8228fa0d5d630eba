"""Norms over channels, linearised where they ran, with their statistics as constants of every neuron.

With n elements in a norm, y = gamma (x - mu) r + b and r = (v + eps)^(-1/2), a neuron moves y by gamma r dx, and the
mean of squares v by dx^2 / n. The latter changes the loss by dx^2 / n * dL/dv = kappa dx^2 / 2, where

    dL/dv = -r^3 / 2 * sum_k g_k gamma_k (x_k - mu),    kappa = -r^2 mean_k(g_k gamma_k y0_k),    y0 = (x - mu) r.

mu takes no part in that: the derivative of v with respect to it is zero. `averages_over_channels` says the same in
means.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nni_s3d.growth.curvature.nodes import Node
from nni_s3d.growth.curvature.recorded_call import RecordedCall
from nni_s3d.growth.modules import tensors

_SIGNATURES = {
    "layer_norm": inspect.signature(lambda shape, weight=None, bias=None, eps=1e-5, *_: None),
    "rms_norm": inspect.signature(lambda shape, weight=None, eps=None: None),
    "group_norm": inspect.signature(lambda groups, weight=None, bias=None, eps=1e-5, *_: None),
}


class NormOverChannels(Node):
    """A layer norm, group norm or root mean square norm.

    Args:
        inputs: number of the value that it takes.
        call: of the function; its first argument alone depends on a leaf.
    """

    def __init__(self, inputs: Sequence[int], call: RecordedCall) -> None:
        super().__init__(inputs, call)
        self._name, self._dim = call.name, call.tensors[0].dim()
        args, kwargs = call.rest()
        kwargs = {{"normalized_shape": "shape", "num_groups": "groups"}.get(key, key): x for key, x in kwargs.items()}
        bound = _SIGNATURES[self._name].bind(*args, **kwargs)
        bound.apply_defaults()
        self._settings: dict[str, Any] = bound.arguments

    @property
    def has_curvature(self) -> bool:
        return True

    def run(self, *inputs: Tensor) -> Any:
        x = self._grouped(inputs[0])
        dims = (
            tuple(range(2, x.dim())) if "groups" in self._settings else tuple(range(-len(self._settings["shape"]), 0))
        )
        eps = self._settings["eps"]
        self._dims, centred = dims, x if self._name == "rms_norm" else x - x.mean(dims, keepdim=True)
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        self._size = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()  # r
        self._normal: Tensor | None = centred * self._size
        self._slope = self._size if self._settings["weight"] is None else self._size * self._weight()
        return self.function(*inputs)

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        (g,) = cotangents
        assert g is not None
        assert self._normal is not None
        sloped = self._grouped(g) * self._slope
        along = (sloped * self._normal).mean(self._dims, keepdim=True)
        back = torch.addcmul(sloped, self._normal, along, value=-1)
        if self._name != "rms_norm":
            back -= sloped.mean(self._dims, keepdim=True)
        self.linearized, self._kappa, self._normal = True, -self._size * along, None
        return [back.view_as(g)]

    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        (tangent,) = tangents
        self.saved = tangent
        if tangent is None or not self.reaches_curvature:
            return [None]
        return [(self._grouped(tangent) * self._slope).view(tangent.shape)]

    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        (w,), tangent = cotangents, self.saved
        back = None if w is None else self._grouped(w) * self._slope
        if tangent is not None:
            moved = self._grouped(tangent)
            back = moved * self._kappa if back is None else back.addcmul_(moved, self._kappa)
        return [None if back is None else back.view((w if tangent is None else tangent).shape)]  # type: ignore[union-attr]

    def _grouped(self, x: Tensor) -> Tensor:
        """Return a tensor with a dimension for the groups of a group norm."""
        return x.unflatten(1, (self._settings["groups"], -1)) if "groups" in self._settings else x

    def _weight(self) -> Tensor:
        weight: Tensor = self._settings["weight"]
        if "groups" not in self._settings:
            return weight
        return weight.reshape(self._settings["groups"], -1, *[1] * (self._dim - 2))


@dataclass(frozen=True)
class OverChannels:
    """A norm that is known to be over channels: others have other derivatives."""

    func: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the norm does."""
        return self.func(*args, **kwargs)


def is_usual(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is that of a norm whose input alone may depend on others; `name` is its canonical name."""
    if name not in _SIGNATURES or not args:
        return False
    return all(isinstance(x, nn.Parameter) or not x.requires_grad for x in tensors((args[1:], kwargs)))


def norm_over_channels(_: object, call: RecordedCall, inputs: list[int]) -> Node | None:
    """Return the node of a norm that is over channels; None for any other call."""
    return NormOverChannels(inputs, call) if isinstance(call.func, OverChannels) else None
