"""Kinks that what follows takes away: relu(x)**2 has a slope without a jump, so that nothing is to be lent to it.

An activation has kinks at some places of its input. Where a function of the activation (and of its input, perhaps) has
no slope at the value that belongs to such a place, the composition has no kink there.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.curvature.recorded_call import RecordedCall
from nni_s3d.growth.curvature.smoothing import SMOOTHED
from nni_s3d.growth.graph.functions import KINDS, Kind

_CURVED = (Kind.ACTIVATION, Kind.ELEMENTWISE, Kind.PRODUCT, Kind.COMBINATION)
_AFFINE = (Kind.IDENTITY, Kind.SUM, Kind.PRODUCT)
SlopeOf = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
_NumbersOf = Callable[[dict[str, Any]], dict[Any, Any]]
_VALUES: dict[str, _NumbersOf] = {  # of activations, by the arguments: {place of a kink: value there}
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "rrelu", "abs"), lambda _: {0.0: 0.0}),
    "relu6": lambda _: {0.0: 0.0, 6.0: 6.0},
    "hardsigmoid": lambda _: {-3.0: 0.0, 3.0: 1.0},
    "hardtanh": lambda a: {a["min_val"]: a["min_val"], a["max_val"]: a["max_val"]},
    "softshrink": lambda a: {a["lambd"]: 0.0, -a["lambd"]: 0.0},
    "threshold": lambda a: {a["threshold"]: a["threshold"]} if a["threshold"] == a["value"] else {},
    "clamp": lambda a: {x: x for x in (a["min"], a["max"]) if x is not None},
    "clamp_min": lambda a: {a["min"]: a["min"]},
    "clamp_max": lambda a: {a["max"]: a["max"]},
    "maximum": lambda a: {a["other"]: a["other"]},
    "minimum": lambda a: {a["other"]: a["other"]},
}


@dataclass(frozen=True, eq=False)
class Kinks:
    """The kinks of a tensor as a function of another one, element by element."""

    root: weakref.ref[Tensor]  # the other one
    values: dict[float, float]  # {place of a kink, a number that the other one may be: this one there}


def kinks_of(call: RecordedCall) -> Kinks | None:
    """Return the kinks of what an activation returns; None for another function, or where they are no numbers."""
    if not call.smoothed or len(call.tensors) != 1 or not call.leads or call.name not in _VALUES:
        return None
    args, kwargs = call.rest()
    arguments = inspect.signature(SMOOTHED[call.name]).bind(None, None, *args, **kwargs)
    arguments.apply_defaults()
    values = {_number(at): _number(value) for at, value in _VALUES[call.name](arguments.arguments).items()}
    if None in values or None in values.values():
        return None
    return Kinks(weakref.ref(call.tensors[0]), values)  # type: ignore[arg-type]


def carried(call: RecordedCall, kinks: Kinks | None) -> Kinks | None:
    """Return the kinks of what a function returns that only scales and shifts by numbers."""
    affine = KINDS[call.name] in _AFFINE and len(call.tensors) == 1 and call.leads and not call.constants
    if kinks is None or not affine:
        return None
    like = call.tensors[0]
    values = {at: float(call(like.new_full((1,) * like.dim(), value))) for at, value in kinks.values.items()}
    return Kinks(kinks.root, values)


def flat_places(call: RecordedCall, kinks: Sequence[Kinks | None], slope_of: SlopeOf) -> list[list[bool]]:
    """Return, for every tensor that a function takes and every kink of it, whether the function has no slope there.

    Args:
        call: of a function of every element.
        kinks: of the tensors that it takes.
        slope_of: the slopes of a function of every element of a tensor.
    """
    kind = KINDS[call.name]
    if kind not in _CURVED or call.smoothed or (kind is Kind.PRODUCT and len(call.tensors) == 1):
        return [[False] * (0 if one is None else len(one.values)) for one in kinks]
    flat = []
    for place, one in enumerate(kinks):
        there = [] if one is None else [_tensors_at(call.tensors, kinks, one, at) for at in one.values]
        flat.append([x is not None and _is_flat(call, x, place, slope_of) for x in there])
    return flat


def near(tensor: Tensor, kinks: Kinks, flat: Sequence[bool]) -> Tensor:
    """Return where the kink that is nearest to an element is a flat one, in the shape of the tensor."""
    distances = torch.stack([(tensor.detach() - value).abs() for value in kinks.values.values()])
    return torch.tensor(flat, device=tensor.device)[distances.argmin(dim=0)]


def _tensors_at(tensors: Sequence[Tensor], kinks: Sequence[Kinks | None], of: Kinks, at: float) -> list[Tensor] | None:
    """Return what tensors are at a kink; None if one of them is no function of the tensor that has the kink."""
    root, there = of.root(), []
    for tensor, one in zip(tensors, kinks, strict=True):
        if one is of or (one is not None and root is not None and one.root() is root and at in one.values):
            value = one.values[at]
        elif tensor is root:
            value = at
        else:
            return None
        there.append(torch.full_like(tensor, value).detach())
    return there


def _is_flat(call: RecordedCall, there: list[Tensor], place: int, slope_of: SlopeOf) -> bool:
    slope = slope_of(lambda x: call(*there[:place], x, *there[place + 1 :]), there[place])
    return bool((slope == 0).all())


def _number(x: Any) -> float | None:
    if isinstance(x, Tensor):
        same = not x.requires_grad and bool((x == x.flatten()[0]).all())
        return float(x.flatten()[0]) if same else None
    return float(x)
