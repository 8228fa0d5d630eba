"""The kinks of values on a tape, and readers that take them away."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from nni_s3d.growth.curvature.elementwise_nodes import ChannelScale, Elementwise, WithoutKinks, derivatives
from nni_s3d.growth.curvature.kinks import Kinks, carried, flat_places, kinks_of, near
from nni_s3d.growth.curvature.nodes import Node
from nni_s3d.growth.curvature.recorded_call import RecordedCall


@dataclass(frozen=True, eq=False)
class Kinked:
    """A tensor with kinks: an activation, perhaps scaled and shifted by numbers."""

    kinks: Kinks
    activation: Elementwise | None = None  # None until it is recorded
    scales: tuple[ChannelScale, ...] = ()  # behind the activation


class KinksOnTape:
    """Knows the tensors with kinks of a tape."""

    def __init__(self) -> None:
        self._kinked: dict[int, tuple[weakref.ref[Tensor], Kinked]] = {}  # by id, which may come again for another one

    def take_away(self, call: RecordedCall, put: Callable[[Tensor, Callable[[int], Node]], Tensor]) -> None:
        """Let a call read tensors without those of their kinks that its result does not have.

        Args:
            call: whose tensors are exchanged.
            put: records a node that takes one tensor, given what makes it of the tensor's number.
        """
        known = [self._of(x) for x in call.tensors]
        if not any(known):  # as a rule
            return
        flat = flat_places(call, [None if one is None else one.kinks for one in known], _slope)
        for place, (kinked, places) in enumerate(zip(known, flat, strict=True)):
            if kinked is not None and kinked.activation is not None and any(places):
                where = near(call.tensors[place], kinked.kinks, places)
                node_of = partial(WithoutKinks, activation=kinked.activation, scales=kinked.scales, near=where)
                call.tensors[place] = put(call.tensors[place], node_of)

    def of_result(self, call: RecordedCall) -> Kinked | None:
        """Return what will be known of the result of a call that is not made yet."""
        if (kinks := kinks_of(call)) is not None:
            return Kinked(kinks)
        before = self._of(call.tensors[0])
        kinks = None if before is None else carried(call, before.kinks)
        return None if before is None or kinks is None else replace(before, kinks=kinks)

    def note(self, out: Any, kinked: Kinked | None, node: Node | None = None) -> None:
        """Note what is known of a tensor, and the node that made it if that is a new one."""
        if not isinstance(out, Tensor):
            return
        if kinked is not None and kinked.activation is None:
            kinked = replace(kinked, activation=node) if isinstance(node, Elementwise) else None
        elif kinked is not None and isinstance(node, ChannelScale):
            kinked = replace(kinked, scales=(*kinked.scales, node))
        elif node is not None:
            kinked = None
        self._kinked.pop(id(out), None)
        if kinked is not None:
            self._kinked[id(out)] = (weakref.ref(out), kinked)

    def note_overwritten(self, target: Tensor, out: Tensor) -> None:
        """Note that one tensor has been written into another one."""
        self.note(target, self._of(out))

    def _of(self, tensor: Tensor) -> Kinked | None:
        reference, kinked = self._kinked.get(id(tensor), (None, None))
        return kinked if reference is not None and reference() is tensor else None


def _slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return derivatives(function, x)[0]
