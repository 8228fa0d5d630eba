"""Kinks that are written with a comparison, as sums of ramps: autograd takes a comparison for a constant.

    x * (x > 0),  torch.where(x > 0, x, 0.1 * x),  x.masked_fill(x < 0, 0.0),  torch.where(x > 1, 1.0, x), ...

On either side of a number is one number times x, plus another one; both are equal at the kink. So it is relu(x - kink)
times the difference of the slopes, plus what is below the kink. Whatever has a jump stays as it is.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.graph.functions import KINDS, Kind

_ABOVE, _BELOW = {"gt", "ge", "greater", "greater_equal"}, {"lt", "le", "less", "less_equal"}
_NOT = {"logical_not", "bitwise_not", "invert"}
WRITTEN = "write a kink with relu, clamp, abs or maximum"
_CHOICES = {"mul", "multiply", "rmul", "where", "masked_fill"}
_AFFINE: dict[str, Callable[[float], tuple[float, float]]] = {  # slope and shift, by the number
    **dict.fromkeys(("mul", "multiply", "rmul"), lambda n: (n, 0.0)),
    **dict.fromkeys(("add", "radd"), lambda n: (1.0, n)),
    **dict.fromkeys(("div", "truediv"), lambda n: (1 / n if n else math.nan, 0.0)),
    "sub": lambda n: (1.0, -n),
    "rsub": lambda n: (-1.0, n),
}


@dataclass(frozen=True)
class _Made:
    """A tensor that was made of another one and of numbers, neither of which has changed since."""

    tensor: weakref.ref[Tensor]
    root: weakref.ref[Tensor]
    versions: tuple[int, int]
    slope: float  # of the other one
    shift: float
    kink: float | None = None  # of a mask: whose slope says whether it is one above (1) or below (-1)

    def is_valid(self) -> bool:
        """Whether both are what they were."""
        tensor, root = self.tensor(), self.root()
        return tensor is not None and root is not None and (_version(tensor), _version(root)) == self.versions


class WrittenKinks:
    """Knows the masks of a run, and what was made of a tensor by numbers alone."""

    def __init__(self) -> None:
        self._made: dict[int, _Made] = {}
        self._has_masks = False

    def follow(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Take in what a function has made."""
        if not isinstance(out, Tensor) or not args or kwargs or out is args[0]:
            return
        x, numbers = args[0], [n for n in args if _is_number(n)]
        if not isinstance(x, Tensor):
            return
        if name in _ABOVE | _BELOW and len(args) == 2 and numbers and x.is_floating_point():
            self._note(out, x, 1.0 if name in _ABOVE else -1.0, 0.0, float(numbers[0]))
        elif (mask := self.mask(x)) is not None and (KINDS.get(name) is Kind.CAST or name in _NOT):
            root = mask.root()
            if root is not None:
                self._note(out, root, -mask.slope if name in _NOT else mask.slope, 0.0, mask.kink)
        elif name == "zeros_like" and len(args) == 1:
            self._note(out, x, 0.0, 0.0)
        elif name in _AFFINE and len(args) == 2 and numbers:
            self._note(out, x, *_AFFINE[name](float(numbers[0])))
        elif name == "neg":
            self._note(out, x, -1.0, 0.0)

    def mask(self, tensor: object) -> _Made | None:
        """Return how a mask was made, None for any other tensor."""
        made = self._made.get(id(tensor))
        return made if made is not None and made.tensor() is tensor and made.kink is not None else None

    def keeps_masks(self, name: str) -> bool:
        """Whether what a function makes of a mask is a mask again, or there are none."""
        return not self._has_masks or KINDS.get(name) is Kind.CAST or name in _NOT

    def as_ramp(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Tensor] | None:
        """Return a call as a sum of ramps, if it is a choice by a mask without a jump; None for any other call."""
        in_place = getattr(func, "__name__", "").rstrip("_") + "_" == getattr(func, "__name__", "")
        if name not in _CHOICES or kwargs or in_place or not self._has_masks:
            return None
        masks = [x for x in args if self.mask(x) is not None]
        mask = self.mask(masks[0]) if len(masks) == 1 else None
        root = None if mask is None or not mask.is_valid() else mask.root()
        if mask is None or root is None or mask.kink is None:
            return None
        others = [x for x in args if x is not masks[0]]
        chosen = {"where": others, "masked_fill": others[::-1]}.get(name, [*others, 0.0])
        sides = [side for x in chosen if (side := self._side(x, root)) is not None]
        if len(sides) != 2:
            return None
        above, below = sides if mask.slope > 0 else sides[::-1]
        return _ramp(root, mask.kink, above, below)

    def _note(self, out: Tensor, x: Tensor, slope: float, shift: float, kink: float | None = None) -> None:
        before = self._made.get(id(x))
        if before is not None and before.kink is None and before.tensor() is x and before.is_valid() and kink is None:
            root = before.root()
            assert root is not None
            x, slope, shift = root, slope * before.slope, slope * before.shift + shift
        self._has_masks |= kink is not None
        versions = _version(out), _version(x)
        self._made[id(out)] = _Made(weakref.ref(out), weakref.ref(x), versions, slope, shift, kink)

    def _side(self, x: Any, root: Tensor) -> tuple[float, float] | None:
        """Return slope and shift of what is chosen on one side, None if it is no such function of the root."""
        if _is_number(x):
            return 0.0, float(x)
        if x is root:
            return 1.0, 0.0
        if isinstance(x, Tensor) and x.dim() == 0 and not x.requires_grad and id(x) not in self._made:
            return 0.0, float(x)
        made = self._made.get(id(x))
        if made is None or made.kink is not None or made.tensor() is not x or made.root() is not root:
            return None
        return (made.slope, made.shift) if made.is_valid() else None


def _ramp(
    x: Tensor, kink: float, above: tuple[float, float], below: tuple[float, float]
) -> Callable[[], Tensor] | None:
    ends = [slope * kink + shift for slope, shift in (above, below)]
    if not math.isclose(*ends, rel_tol=1e-9, abs_tol=1e-12):  # a jump
        return None
    height, (slope, shift) = above[0] - below[0], below

    def ramp() -> Tensor:
        out = torch.relu(x - kink if kink else x)
        out = out if height == 1 else out * height
        out = out + x * slope if slope else out
        return out + shift if shift else out

    return ramp


def masks_among(kinks: WrittenKinks, tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return what the masks among some tensors were made of."""
    roots = [mask.root() for x in tensors if (mask := kinks.mask(x)) is not None]
    return [root for root in roots if root is not None]


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version
