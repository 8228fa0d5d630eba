"""The functions between producers and consumers, linearised where they ran: products with the Hessian of h.

Autograd could differentiate twice through them, but would then compute much that is not asked for. The tape keeps of
every function only what a product needs: one forward and one backward pass through the network find it. A product takes
tangents forward, t -> J t, and the tangents of the cotangents back, w -> J' w + g f'' t, where g is the cotangent of h
at the function's output: the same for all products.

    element-wise    the slope and g times the curvature, a tensor each; a scale before it is taken into both, or
                    into the filters of the producer before that
    max pooling     which element was taken
    linear          the function itself, and its backward graph
    anything else   its own backward graph, differentiated once more
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from nni_s3d.growth.curvature.autograd_step import Step, is_floating, overwritten, recorded
from nni_s3d.growth.curvature.components import connected_components
from nni_s3d.growth.curvature.elementwise_nodes import ChannelScale, Elementwise, derivatives, slope_of
from nni_s3d.growth.curvature.kinks_on_tape import KinksOnTape
from nni_s3d.growth.curvature.nodes import Function, Linear, MaxPool, Node, TwiceDifferentiable
from nni_s3d.growth.curvature.norm_over_channels import norm_over_channels
from nni_s3d.growth.curvature.recorded_call import RecordedCall
from nni_s3d.growth.curvature.registered_functions import check_derivatives
from nni_s3d.growth.curvature.segment import Segment
from nni_s3d.growth.curvature.smoothing import elementwise_name, ramp_derivatives
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from nni_s3d.growth.graph.functions import ELEMENTWISE, KINDS, LENDS_SHAPE, LINEAR, Kind


class Tape:
    """Records functions as they run; autograd's backward pass from the loss to `anchor` then linearises them.

    A value is a tensor that depends on a leaf, known by a number; a function that only changes its shape or adds a
    constant makes no new value.

    Args:
        beta: sharpness of the softplus that lends piecewise-linear activations its curvature.
        zeros: which all tapes of an operator share.

    Attributes:
        anchor: what every value depends on, as far as autograd knows.
    """

    def __init__(self, beta: float, zeros: ZeroBuffer) -> None:
        self.anchor = torch.zeros((), requires_grad=True)
        self.beta, self.zeros = beta, zeros
        self._values = 0
        self._alive: dict[int, tuple[weakref.ref[Tensor], int]] = {}  # by id, which may come again for another tensor
        self._nodes: list[Node] = []
        self._makers: dict[int, Node] = {}  # by value
        self._kinks = KinksOnTape()
        self._checked = set[str]()
        self._consumed: set[int] = set()  # values that consumers take

    def leaf(self, step: Step, tensor: Tensor) -> tuple[Tensor, int]:
        """Return what a step makes of a tensor, and its number: a value with respect to which h is differentiated."""
        out: Tensor = recorded(step, self.anchor, [tensor])
        return out, self._new_value(out)

    def mark_consumed(self, tensor: Tensor) -> None:
        """Note that a consumer takes this tensor."""
        if (value := self._value_of(tensor)) is not None:
            self._consumed.add(value)

    def apply(self, func: Function, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function, and record it if anything that it takes depends on a leaf."""
        name = elementwise_name(name, args, kwargs)
        args, kwargs = pytree.tree_map_only(nn.Parameter, Tensor.detach, (args, kwargs))
        call = RecordedCall(func, name, args, kwargs, beta=self.beta, matters=self._is_alive)
        if not call.tensors or name not in KINDS or (name in LENDS_SHAPE and not call.leads):
            return _run_unrecorded(call) if call.smoothed else func(*args, **kwargs)
        if _keeps_value(call):
            target, out = call.target, self._run_as_same_value(call)
        else:
            if any(x.requires_grad for x in call.constants):
                # They do not depend on a leaf, but other neurons reach the loss through them.
                call = RecordedCall(func, name, args, kwargs, beta=self.beta, matters=self._is_alive_or_requires_grad)
            target, out = call.target, self._record(call)
        if target is None:
            return out
        self._set_value(target, self._alive[id(out)][1])
        self._kinks.note_overwritten(target, out)
        return overwritten(target, out)

    def _run_as_same_value(self, call: RecordedCall) -> Any:
        kinked = self._kinks.of_result(call)
        out = call(*call.tensors)
        self._set_value(out, self._alive[id(call.tensors[0])][1])
        self._kinks.note(out, kinked)
        return out

    def _record(self, call: RecordedCall) -> Any:
        if "." in call.name and KINDS[call.name] not in LINEAR and call.name not in self._checked:
            self._checked.add(call.name)  # of a user, whose derivatives nobody has tested
            check_derivatives(call.name, call.unsmoothed(), call, call.tensors)
        self._kinks.take_away(call, lambda x, node_of: self._put(node_of(self._number(x)), [x]))
        kinked = self._kinks.of_result(call)
        inputs = [self._number(x) for x in call.tensors]
        node = next(node for build in _BUILDERS if (node := build(self, call, inputs)) is not None)
        out = self._put(node, call.tensors)
        call.forget()
        self._kinks.note(out, kinked, node)
        return out

    def _put(self, node: Node, tensors: list[Tensor]) -> Any:
        """Run a node on these tensors, and keep it."""
        out = recorded(node, self.anchor, tensors)
        node.outputs = [self._new_value(x) for x in pytree.tree_leaves(out) if is_floating(x)]
        self._makers.update(dict.fromkeys(node.outputs, node))
        self._nodes.append(node)
        return out

    def maker_of(self, value: int) -> Node | None:
        """Return the function that makes a value; a leaf has none."""
        return self._makers.get(value)

    def _number(self, tensor: Tensor) -> int:
        value = self._value_of(tensor)
        return self._new_value(tensor) if value is None else value

    def _new_value(self, tensor: Tensor) -> int:
        self._set_value(tensor, self._values)
        self._values += 1
        return self._values - 1

    def _set_value(self, tensor: Tensor, value: int) -> None:
        self._alive[id(tensor)] = (weakref.ref(tensor), value)

    def _value_of(self, tensor: object) -> int | None:
        reference, value = self._alive.get(id(tensor), (None, None))
        return value if reference is not None and reference() is tensor else None

    def _is_alive(self, tensor: object) -> bool:
        return self._value_of(tensor) is not None

    def _is_alive_or_requires_grad(self, tensor: object) -> bool:
        return self._is_alive(tensor) or (isinstance(tensor, Tensor) and tensor.requires_grad)

    def prune(self) -> None:
        """Leave out what no consumer reads, and tangents that come to nothing, before the backward pass."""
        reached, curved, needed = set(self._consumed), set[int](), []
        for node in reversed(self._nodes):
            if not reached.isdisjoint(node.outputs):
                needed.append(node)
                reached.update(node.inputs)
                node.reaches_curvature = not curved.isdisjoint(node.outputs)
                if node.reaches_curvature or node.has_curvature:
                    curved.update(node.inputs)
        self._nodes = needed[::-1]

    def sole_reader(self, value: int) -> Node | None:
        """Return the function that takes a value, if there is one and nothing else does, after `prune`."""
        readers = [node for node in self._nodes if value in node.inputs]
        return readers[0] if len(readers) == 1 and value not in self._consumed else None

    def segments(self) -> list[Segment]:
        """Return what products need, after the backward pass: segments that share no value."""
        nodes = [node for node in self._nodes if node.linearized]
        edges = [(node.inputs[0], value) for node in nodes for value in (*node.inputs, *node.outputs)]
        components = connected_components(self._values, edges)
        members: dict[int, list[Node]] = {}
        for node in nodes:
            members.setdefault(components[node.inputs[0]], []).append(node)
        return [Segment(together) for together in members.values()]


def _run_unrecorded(call: RecordedCall) -> Any:
    """Run an activation that no leaf reaches, smoothed all the same."""
    target, out = call.target, call(*call.tensors)
    return out if target is None else overwritten(target, out)


def _keeps_value(call: RecordedCall) -> bool:
    """Whether the result moves as the tensor does that is taken."""
    kind = KINDS[call.name]
    return kind is Kind.IDENTITY or (kind is Kind.SUM and call.leads and call.keeps_shape())


# -- kinds of nodes --------------------------------------------------------------------------------------------------


def _scale_of_norm(_: Tape, call: RecordedCall, inputs: list[int]) -> Node | None:
    return ChannelScale(inputs, call, slope_of(call, call.tensors[0])) if KINDS[call.name] is Kind.BATCH_NORM else None


def _scale(_: Tape, call: RecordedCall, inputs: list[int]) -> Node | None:
    if KINDS[call.name] is not Kind.PRODUCT or not call.leads or call.arguments != 2 or not call.keeps_shape():
        return None
    x, factor = call.tensors[0], call.second if "mul" in call.name else 1 / call.second
    return ChannelScale(inputs, call, torch.as_tensor(factor, dtype=x.dtype, device=x.device))


def _elementwise(tape: Tape, call: RecordedCall, inputs: list[int]) -> Node | None:
    if KINDS[call.name] not in ELEMENTWISE or not call.keeps_shape():
        return None
    both = partial(ramp_derivatives, beta=tape.beta) if call.name == "relu" else partial(derivatives, call)
    before = tape.maker_of(inputs[0])
    if isinstance(before, ChannelScale):
        return Elementwise(before.inputs, call, both, before.scale)
    return Elementwise(inputs, call, both)


def _max_pool(_: Tape, call: RecordedCall, inputs: list[int]) -> Node | None:
    if KINDS[call.name] is not Kind.MAX_POOL:
        return None
    dims = int(call.name[-2])  # of max_pool2d, say
    return MaxPool(inputs, call.by(getattr(F, f"{call.name}_with_indices")), dims)


def _layer(tape: Tape, call: RecordedCall, inputs: list[int]) -> Node | None:
    if KINDS[call.name] is not Kind.LINEAR:
        return None
    return Linear(inputs, call, call.without_bias, constant=False, zeros=tape.zeros)


def _linear(tape: Tape, call: RecordedCall, inputs: list[int]) -> Node | None:
    sampled = call.name == "grid_sample" and call.leads and len(call.tensors) == 1  # at fixed positions
    if KINDS[call.name] not in LINEAR and not sampled:
        return None
    return Linear(inputs, call, call, constant=bool(call.constants), zeros=tape.zeros)


def _twice_differentiable(_: Tape, call: RecordedCall, inputs: list[int]) -> Node:
    return TwiceDifferentiable(inputs, call)


# The first that answers makes the node: a name may be of several kinds, of which its arguments rule some out.
_BUILDERS: tuple[Callable[[Tape, RecordedCall, list[int]], Node | None], ...] = (
    norm_over_channels,
    _scale_of_norm,
    _scale,
    _elementwise,
    _max_pool,
    _layer,
    _linear,
    _twice_differentiable,
)
