"""What `kinks_on_tape` does, where functions are differentiated as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from nni_s3d.growth.curvature.kinks import Kinks, carried, flat_places, kinks_of, near
from nni_s3d.growth.curvature.recorded_call import RecordedCall
from nni_s3d.growth.graph.functions import ELEMENTWISE, KINDS


@dataclass(frozen=True, eq=False)
class _Kinked:
    tensor: Tensor
    kinks: Kinks
    unsmoothed: Callable[[], Tensor]  # the same without a curvature at its kinks
    root: Tensor | None  # what is kept so that no two tensors ever share an id


class PlainKinks:
    """Runs functions of every element, and those that take kinks away without a curvature there."""

    def __init__(self, beta: float) -> None:
        self._beta = beta
        self._kinked: dict[int, _Kinked] = {}
        self._roots: set[int] = set()

    def run(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function, in place if it is one that does that."""
        call = RecordedCall(func, name, args, kwargs, beta=self._beta, matters=self._first_or_known(args, kwargs))
        if KINDS.get(name) not in ELEMENTWISE or not call.tensors:
            return call(*call.tensors) if "." in name else func(*args, **kwargs)
        target, given = call.target, [x.clone() if x is call.target else x for x in call.tensors]
        out = call(*self._without_kinks(call, given))
        self._note(out if target is None else target, call, given)
        return out if target is None else target.copy_(out)

    def _without_kinks(self, call: RecordedCall, given: list[Tensor]) -> list[Tensor]:
        known = [self._kinked.get(id(x)) for x in call.tensors]
        if not any(known):
            return given
        flat = flat_places(call, [None if one is None else one.kinks for one in known], _slope)
        return [
            torch.where(near(x, one.kinks, places), one.unsmoothed(), x) if one is not None and any(places) else x
            for x, one, places in zip(given, known, flat, strict=True)
        ]

    def _note(self, out: Tensor, call: RecordedCall, given: list[Tensor]) -> None:
        before = self._kinked.get(id(call.tensors[0]))
        unsmoothed, first = call.unsmoothed(), given[0]
        self._kinked.pop(id(out), None)
        if (kinks := kinks_of(call)) is not None:
            self._kinked[id(out)] = _Kinked(out, kinks, lambda: unsmoothed(first), call.tensors[0])
            self._roots.add(id(call.tensors[0]))
        elif before is not None and (kinks := carried(call, before.kinks)) is not None:
            self._kinked[id(out)] = _Kinked(out, kinks, lambda: unsmoothed(before.unsmoothed()), before.root)

    def _first_or_known(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[object], bool]:
        first = args[0] if args else kwargs.get("input")
        floating = isinstance(first, Tensor) and first.is_floating_point()
        return lambda x: (x is first and floating) or id(x) in self._kinked or id(x) in self._roots


def _slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    pull: Callable[..., Any] = vjp(function, x)[1]
    slope: Tensor = pull(torch.ones_like(x))[0]
    return slope
