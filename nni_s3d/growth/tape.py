"""The functions between producers and consumers, linearised where they ran: products with the Hessian of h.

Autograd could differentiate twice through them, but would then compute much that is not asked for. The tape keeps of
every function only what a product needs. A product pushes tangents forward, t -> J t, and pulls the tangents of the
cotangents back, w -> J' w + g f'' t, where g is the cotangent of h at the function's output: the same for all products.

    element-wise    the slope and g times the curvature, a tensor each; a scale before it is taken into both
    linear          the function itself, and its backward graph
    anything else   its own backward graph, differentiated once more
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.growth.functions import Elementwise, Function, Linear, Node, Other, Scale, derivatives, slope_of, total
from nni_s3d.growth.labels import UnionFind
from nni_s3d.growth.rules import elementwise, reductions, shapes
from nni_s3d.growth.smoothing import SMOOTHED, ramp_derivatives, smoothed
from nni_s3d.growth.tracing import DROPOUTS, LINEAR, batch_norm_arguments

_IDENTITIES = frozenset(("contiguous", "clone", "identity", *DROPOUTS))
_SHIFTS = frozenset("add sub iadd isub radd".split())
_SCALES = frozenset("mul multiply imul rmul div truediv itruediv idiv".split())
_SUMS = frozenset("add sub iadd isub radd mean sum interpolate".split())
_AVERAGES = frozenset(name for name in reductions.RULES if "avg_pool" in name)
_LINEAR = frozenset(LINEAR) | _SUMS | _AVERAGES | shapes.RULES.keys() - {"pad"}
_ELEMENTWISE = (elementwise.RULES.keys() | {"prelu"}) - {"glu"}


class Tape:
    """Records functions as they run, then multiplies by the Hessian of the sum of <effect, tensor> over what was read.

    Args:
        beta: sharpness of the softplus that lends piecewise-linear activations its curvature.
    """

    def __init__(self, beta: float) -> None:
        self._beta = beta
        self._values = 0
        self._alive: dict[int, tuple[weakref.ref[Tensor], int]] = {}  # by id, which may come again for another tensor
        self._nodes: list[Node] = []
        self._made_by: dict[int, Node] = {}
        self._effects: dict[int, Tensor] = {}

    def leaf(self, tensor: Tensor) -> int:
        """Return the number of a new value, with respect to which h is differentiated."""
        return self._number(tensor)

    def alive(self, tensor: object) -> bool:
        """Whether a tensor depends on a leaf."""
        return self._number_of(tensor) is not None

    def read(self, tensor: Tensor, effect: Tensor) -> None:
        """Add <effect, tensor> to h."""
        number = self._alive[id(tensor)][1]
        self._effects[number] = total(self._effects.get(number), effect)

    def apply(self, func: Function, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function and record it if anything that it takes depends on a leaf."""
        flat, spec = pytree.tree_flatten((args, kwargs))
        flat = [x.detach() if isinstance(x, nn.Parameter) else x for x in flat]
        places = [i for i, x in enumerate(flat) if self.alive(x)]
        originals = [flat[i] for i in places]
        for i in places:
            flat[i] = None  # the node that is made of this shall not keep it

        def run(*inputs: Tensor) -> Any:
            filled = list(flat)
            for i, x in zip(places, inputs, strict=True):
                filled[i] = x
            given, named = pytree.tree_unflatten(filled, spec)
            if name == "batch_norm":
                norm = batch_norm_arguments(func, given[1:], named)
                return _affine(given[0] if given else norm["input"], norm)
            if name in SMOOTHED:
                return smoothed(func, name, self._beta, given, named)
            return func(*given, **named)

        if not places or name == "detach":
            return run(*originals)
        # A function that works in place is given copies, so that its derivatives are taken where it began.
        copies = [x.clone() for x in originals] if _in_place(func, args, kwargs) else originals
        out = run(*copies)
        numbers = [self._alive[id(x)][1] for x in originals]
        changed = next((i for i, x in enumerate(copies) if out is x and x is not originals[i]), None)
        if changed is None or name in _IDENTITIES:
            self._record(name, func, run, originals, numbers, out, args, kwargs)
            return out
        self._record(name, func, lambda *xs: run(*(x.clone() for x in xs)), originals, numbers, out, args, kwargs)
        self._name(originals[changed], self._alive[id(out)][1])
        return originals[changed].copy_(out)

    def _record(
        self,
        name: str,
        func: Function,
        run: Function,
        inputs: list[Tensor],
        numbers: list[int],
        out: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        outputs = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor) and x.is_floating_point()]
        single = len(numbers) == 1 and len(outputs) == 1 and outputs[0].shape == inputs[0].shape
        first = single and args and self.alive(args[0])
        if name in _IDENTITIES or (name in _SHIFTS and first):
            self._name(outputs[0], numbers[0])
            return
        node: Node
        if name == "batch_norm":
            node = Scale(numbers, slope_of(run, inputs[0][:1]))
        elif name in _SCALES and first and len(args) == 2 and not kwargs:
            factor = args[1] if "mul" in name else 1 / args[1]
            node = Scale(numbers, torch.as_tensor(factor, dtype=outputs[0].dtype, device=outputs[0].device).detach())
        elif name in _ELEMENTWISE and single:
            before = self._made_by.get(numbers[0])
            scale = before if isinstance(before, Scale) else None
            found = ramp_derivatives(inputs[0], self._beta) if name == "relu" else derivatives(run, inputs[0])
            node = Elementwise(numbers if scale is None else scale.inputs, *found, scale)
        elif name in _LINEAR:
            node = Linear(numbers, _without_bias(func, name, args, kwargs, run), inputs)
        else:
            node = Other(numbers, run, inputs)
        node.outputs = [self._number(x) for x in outputs]
        self._made_by.update(dict.fromkeys(node.outputs, node))
        self._nodes.append(node)

    def _number(self, tensor: Tensor) -> int:
        self._name(tensor, self._values)
        self._values += 1
        return self._values - 1

    def _name(self, tensor: Tensor, number: int) -> None:
        self._alive[id(tensor)] = (weakref.ref(tensor), number)

    def _number_of(self, tensor: object) -> int | None:
        reference, number = self._alive.get(id(tensor), (None, None))
        return number if reference is not None and reference() is tensor else None

    def close(self) -> list[Part]:
        """Compute the cotangents, and return what products need: parts that share no value."""
        cotangents: dict[int, Tensor] = dict(self._effects)
        used: list[Node] = []
        for node in reversed(self._nodes):
            arrived = [cotangents.pop(number, None) for number in node.outputs]
            if any(g is not None for g in arrived):
                used.append(node)
                for number, cotangent in zip(node.inputs, node.fix(arrived), strict=True):
                    if cotangent is not None:
                        cotangents[number] = total(cotangents.get(number), cotangent)
        same = UnionFind()
        same.fresh(self._values)
        wanted = {number for node in used for number in node.inputs}
        for node in used:
            node.wanted = any(number in wanted for number in node.outputs)
            for number in (*node.inputs, *node.outputs):
                same.union(node.inputs[0], number)
        parts: dict[int, list[Node]] = {}
        for node in reversed(used):
            parts.setdefault(same.find(node.inputs[0]), []).append(node)
        return [Part(nodes) for nodes in parts.values()]


class Part:
    """Functions that lie between some leaves and what was read of them; no other part has to do with these leaves."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self.values = {number for node in nodes for number in node.inputs}

    def hessian_times(self, tangents: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return the product of the Hessian with one vector, by leaf; leaves that are left out are not moved."""
        pushed: dict[int, Tensor] = dict(tangents)
        for node in self._nodes:
            found = [pushed.get(number) for number in node.inputs]
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


def _in_place(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call may change its first argument: by its name, or since something that it is told is true."""
    name = getattr(func, "__name__", "")
    told = any(value is True for value in (*args[1:], *kwargs.values()))
    return told or name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _without_bias(func: Function, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Function) -> Function:
    """Return the linear part of a convolution; other functions have no constant part."""
    if name not in LINEAR:
        return run
    named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    weight, rest = named.pop("weight").detach(), args[3:]
    settings = {key: value for key, value in named.items() if key not in ("input", "bias")}
    return lambda x: func(x, weight, None, *rest, **settings)


def _affine(x: Tensor, norm: dict[str, Any]) -> Tensor:
    """Batch norm in evaluation mode, as one product and one sum."""
    scale = (norm["running_var"] + norm["eps"]).rsqrt() * (1 if norm["weight"] is None else norm["weight"])
    shift = -norm["running_mean"] * scale + (0 if norm["bias"] is None else norm["bias"])
    shape = (-1,) + (1,) * (x.dim() - 2)
    return torch.addcmul(shift.reshape(shape), x, scale.reshape(shape))
