"""The functions between producers and consumers, linearised where they ran: products with the Hessian of h.

Autograd could differentiate twice through them, but would then compute much that is not asked for. The tape keeps of
every function only what a product needs: one forward and one backward pass through the network find it. A product
pushes tangents forward, t -> J t, and pulls the tangents of the cotangents back, w -> J' w + g f'' t, where g is the
cotangent of h at the function's output: the same for all products.

    element-wise    the slope and g times the curvature, a tensor each; a scale before it is taken into both, or
                    into the filters of the producer before that
    max pooling     which element was taken
    linear          the function itself, and its backward graph
    anything else   its own backward graph, differentiated once more
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from nni_s3d.growth.curvature.autograd_step import Step, is_floating, overwritten, recorded
from nni_s3d.growth.curvature.elementwise_nodes import Elementwise, Scale, derivatives, slope_of
from nni_s3d.growth.curvature.nodes import Choice, Function, Linear, Node, Other, total
from nni_s3d.growth.curvature.recorded_call import RecordedCall
from nni_s3d.growth.curvature.smoothing import SMOOTHED, ramp_derivatives
from nni_s3d.growth.curvature.zero_buffer import Zeros
from nni_s3d.growth.graph.functions import ELEMENTWISE, KINDS, LINEAR, Kind
from nni_s3d.growth.graph.union_find import UnionFind


class Tape:
    """Records functions as they run; autograd's backward pass from the loss to `anchor` then linearises them.

    Args:
        beta: sharpness of the softplus that lends piecewise-linear activations its curvature.
        zeros: which all tapes of an operator share.

    Attributes:
        anchor: what every value depends on, as far as autograd knows.
    """

    def __init__(self, beta: float, zeros: Zeros) -> None:
        self.anchor = torch.zeros((), requires_grad=True)
        self._beta, self._zeros = beta, zeros
        self._values = 0
        self._alive: dict[int, tuple[weakref.ref[Tensor], int]] = {}  # by id, which may come again for another tensor
        self._nodes: list[Node] = []
        self._made_by: dict[int, Node] = {}
        self._read: set[int] = set()  # what consumers take

    def leaf(self, step: Step, tensor: Tensor) -> tuple[Tensor, int]:
        """Return what a step makes of a tensor, and its number: a value with respect to which h is differentiated."""
        out: Tensor = recorded(step, self.anchor, [tensor])
        return out, self._name_new(out)

    def read(self, tensor: Tensor) -> None:
        """Note that a consumer takes this tensor."""
        if (number := self._number_of(tensor)) is not None:
            self._read.add(number)

    def apply(self, func: Function, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function, and record it if anything that it takes depends on a leaf."""
        args, kwargs = pytree.tree_map_only(nn.Parameter, Tensor.detach, (args, kwargs))
        call, kind = RecordedCall(func, name, args, kwargs, self._beta, self._is_alive), KINDS.get(name)
        unknown = not call.tensors or kind is None
        if unknown and name not in SMOOTHED:
            return func(*args, **kwargs)
        shifts = kind is Kind.IDENTITY or (kind is Kind.SUM and call.leads and call.keeps_shape())
        if not (unknown or shifts) and any(x.requires_grad for x in call.constants):
            # They do not depend on a leaf, but other neurons reach the loss through them.
            call = RecordedCall(func, name, args, kwargs, self._beta, lambda x: self._is_alive(x) or _requires_grad(x))
        target = call.target
        out = call(*call.tensors) if unknown else self._shift(call) if shifts else self._record(call)
        if target is None:
            return out
        if not unknown:
            self._name(target, self._alive[id(out)][1])
        return overwritten(target, out)

    def _shift(self, call: RecordedCall) -> Any:
        out = call(*call.tensors)
        self._name(out, self._alive[id(call.tensors[0])][1])
        return out

    def _record(self, call: RecordedCall) -> Any:
        found = [self._number_of(x) for x in call.tensors]
        numbers = [self._name_new(x) if n is None else n for n, x in zip(found, call.tensors, strict=True)]
        node = self._node(call, numbers)
        out = recorded(node, self.anchor, call.tensors)
        call.forget()
        node.outputs = [self._name_new(x) for x in pytree.tree_leaves(out) if is_floating(x)]
        self._made_by.update(dict.fromkeys(node.outputs, node))
        self._nodes.append(node)
        return out

    def _node(self, call: RecordedCall, numbers: list[int]) -> Node:
        name, kind, x = call.name, KINDS[call.name], call.tensors[0]
        if kind is Kind.BATCH_NORM:
            return Scale(numbers, call, slope_of(call, x))
        if kind is Kind.PRODUCT and call.leads and call.arguments == 2 and call.keeps_shape():
            factor = call.second if "mul" in name else 1 / call.second
            return Scale(numbers, call, torch.as_tensor(factor, dtype=x.dtype, device=x.device))
        if kind in ELEMENTWISE and call.keeps_shape():
            before = self._made_by.get(numbers[0])
            both = partial(ramp_derivatives, beta=self._beta) if name == "relu" else partial(derivatives, call)
            if isinstance(before, Scale):
                return Elementwise(before.inputs, call, both, before.scale)
            return Elementwise(numbers, call, both)
        if kind is Kind.MAX_POOL:
            return Choice(numbers, call.by(getattr(F, f"{name}_with_indices")), int(name[-2]))
        if kind is Kind.LINEAR:
            return Linear(numbers, call, call.moving, constant=False, zeros=self._zeros)
        if kind in LINEAR:
            return Linear(numbers, call, call, constant=bool(call.constants), zeros=self._zeros)
        return Other(numbers, call)

    def _name_new(self, tensor: Tensor) -> int:
        self._name(tensor, self._values)
        self._values += 1
        return self._values - 1

    def _name(self, tensor: Tensor, number: int) -> None:
        self._alive[id(tensor)] = (weakref.ref(tensor), number)

    def _is_alive(self, tensor: object) -> bool:
        return self._number_of(tensor) is not None

    def _number_of(self, tensor: object) -> int | None:
        reference, number = self._alive.get(id(tensor), (None, None))
        return number if reference is not None and reference() is tensor else None

    def settle(self) -> None:
        """Leave out what no consumer reads, and tangents that come to nothing, before the backward pass."""
        reached, bent, needed = set(self._read), set[int](), []
        for node in reversed(self._nodes):
            if not reached.isdisjoint(node.outputs):
                needed.append(node)
                reached.update(node.inputs)
                node.wanted = not bent.isdisjoint(node.outputs)
                if node.wanted or node.curved:
                    bent.update(node.inputs)
        self._nodes = needed[::-1]

    def only_user(self, number: int) -> Node | None:
        """Return the function that takes a value, if there is one and nothing else does, after `settle`."""
        users = [node for node in self._nodes if number in node.inputs]
        return users[0] if len(users) == 1 and number not in self._read else None

    def parts(self) -> list[Part]:
        """Return what products need, after the backward pass: parts that share no value."""
        used = [node for node in self._nodes if node.fixed]
        same = UnionFind()
        same.fresh(self._values)
        for node in used:
            for number in (*node.inputs, *node.outputs):
                same.union(node.inputs[0], number)
        parts: dict[int, list[Node]] = {}
        for node in used:
            parts.setdefault(same.find(node.inputs[0]), []).append(node)
        return [Part(nodes) for nodes in parts.values()]


class Part:
    """Functions that lie between some leaves and what was read of them; no other part has to do with these leaves."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self.values = {number for node in nodes for number in node.inputs}
        last = {number: node for node in nodes for number in node.inputs}
        self._done = [[number for number in last if last[number] is node] for node in nodes]

    def tensors(self) -> list[Tensor]:
        """Return what is kept between products, in the nodes themselves."""
        return [
            x for node in self._nodes for x in pytree.tree_leaves(list(vars(node).values())) if isinstance(x, Tensor)
        ]

    def hessian_times(self, pushed: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return the product of the Hessian with one vector, by leaf; leaves that are left out are not moved.

        The tangents are taken out of the dictionary, so that they need not be there all at once.
        """
        for node, done in zip(self._nodes, self._done, strict=True):
            found = [pushed.get(number) for number in node.inputs]
            for number in done:
                pushed.pop(number, None)
            if any(t is not None for t in found):
                for number, tangent in zip(node.outputs, node.push(found), strict=True):
                    if tangent is not None:
                        pushed[number] = tangent
        pulled: dict[int, Tensor] = {}
        for node in reversed(self._nodes):
            arrived = [pulled.pop(number, None) for number in node.outputs]
            if node.kept is not None or any(w is not None for w in arrived):
                for number, part in zip(node.inputs, node.pull(arrived), strict=True):
                    if part is not None:
                        pulled[number] = total(pulled.get(number), part)
            node.kept = None
        return pulled


def _requires_grad(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad
