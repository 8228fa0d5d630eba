"""Find the channel graph of a model by following its channels through one example run.

Every tensor of the run may carry *labels*: an int64 tensor that broadcasts to it and says which channel each element
belongs to (-1: none). A layer with a weight reads the labels of its input (it is their consumer) and gives its output
fresh ones (it is their producer); element-wise functions hand labels on, and where two labelled tensors meet, their
channels become one. Whatever has no rule seals the channels that enter it: they are refused, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from nni_s3d.errors import ModelError
from nni_s3d.growth.channels import Axis, ChannelGraph, ChannelGroup, Layer, Role, Work
from nni_s3d.growth.modes import call, check_device, evaluation_mode, tensors

LINEAR = (
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
)  # functions of (input, weight, bias, ...) that can produce channels
Rule = Callable[..., "Tensor | None"]
_RULES: dict[str, Rule] = {}


class _UnionFind:
    """Channels that were found to be one."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def fresh(self, count: int) -> Tensor:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def union(self, a: int, b: int) -> None:
        first, second = sorted((self.find(a), self.find(b)))
        self.parent[second] = first  # the earlier channel stands for both


class Tracer(TorchFunctionMode):
    """Follows the channels of one model through one run."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.owners: dict[int, list[str]] = {}
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            self.owners.setdefault(id(tensor), []).append(name)
        self.same = _UnionFind()
        self.sealed: dict[int, str] = {}
        self.layers: list[Layer] = []
        self.works: list[Work] = []
        self.used: Counter[str] = Counter()
        self.elsewhere: dict[str, str] = {}  # parameters and buffers that also enter a function without a rule for them
        self.samples = 1
        # The run's tensors are kept alive so that no two of them ever share an id.
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}

    def run(self, example_inputs: object) -> ChannelGraph:
        """Run the model on the inputs and return what was seen."""
        inputs = tensors(example_inputs)
        if not inputs or inputs[0].dim() == 0:
            raise ModelError("example_inputs: expected at least one tensor with a batch dimension, got none")
        check_device(self.model, example_inputs, "example_inputs")
        self.samples = max(1, inputs[0].shape[0])
        with evaluation_mode(self.model), torch.no_grad():
            try:
                with self:
                    outputs = call(self.model, example_inputs)
            except Exception as error:
                raise ModelError(f"{type(self.model).__name__} fails on the example inputs: {error}") from error
        for output in tensors(outputs):
            self.seal([self.labels(output)], "it is an output of the network")
        for axis in (axis for layer in self.layers for axis in layer.axes if axis.tensor in self.elsewhere):
            self.seal([axis.slots], f"the parameter {axis.tensor} also enters {self.elsewhere[axis.tensor]}")
        return _build(self)

    # -- what a rule works with --------------------------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = canonical_name(func)
        if name.startswith("new_"):  # new_zeros and its like read a type and a device, not values
            return out
        if isinstance(out, Tensor) and name in _RULES:
            labels = _RULES[name](self, name, out, *args, **kwargs)
            if labels is not None:
                self._labels[id(out)] = (out, labels)
        elif tensors(out) or name in _READS_VALUES:
            self.seal_inputs(name, (args, kwargs))
        if name not in _WITH_WEIGHT and tensors(out):
            owners = (self.owner(tensor) for tensor in tensors((args, kwargs)))
            self.elsewhere.update(dict.fromkeys((owner for owner in owners if owner), name))
        return out

    def labels(self, tensor: object) -> Tensor | None:
        """Return the labels of a tensor, or None if it carries no channels."""
        return self._labels.get(id(tensor), (None, None))[1]

    def seal(self, labels: Iterable[Tensor | None], reason: str) -> Tensor | None:
        """Refuse all these channels, for the first reason given; what comes out carries no labels."""
        for label in labels:
            for channel in label.unique().tolist() if label is not None else ():
                if channel >= 0:
                    self.sealed.setdefault(channel, reason)
        return None

    def seal_inputs(self, name: str, inputs: object, reason: str = "") -> Tensor | None:
        """Refuse the channels of all tensors that enter a function; what comes out carries no labels."""
        seen = [self.labels(tensor) for tensor in tensors(inputs)]
        return self.seal(seen, reason or f"its channels enter {name}, which has no exact rule")

    def owner(self, tensor: Tensor | None) -> str | None:
        """Return the dotted name of a parameter or buffer of the model, None for any other tensor."""
        names = self.owners.get(id(tensor))
        return names[0] if names else None

    def along(self, tensor: Tensor, dim: int) -> Tensor | None:
        """Return the channel at each index of one dimension, or None if channels run along another one."""
        size, labels = tensor.shape[dim], self.labels(tensor)
        if labels is None:
            return torch.full((size,), -1)
        others = [n for d, n in enumerate(tensor.shape) if d not in (0, dim % tensor.dim())]
        # The labels of a single channel do not say which way it runs: along a dimension of size one, if there is one.
        elsewhere = labels.numel() == 1 and size > 1 and 1 in others
        if labels.numel() != labels.shape[dim] or elsewhere:
            return None
        return labels.reshape(-1).expand(size)

    def add_layer(self, kind: str, parameters: Iterable[str | None], axes: list[Axis]) -> None:
        """Note one use of a module's parameters; a second use of the same ones refuses everything they touch."""
        name = axes[0].tensor.rpartition(".")[0]
        names = list(dict.fromkeys(axis.tensor for axis in axes))
        self.layers.append(Layer(name, kind, tuple(p for p in parameters if p), tuple(axes)))
        shared = next((n for n in names for other in self.owners.values() if n in other and len(other) > 1), None)
        twice = shared or next((n for n in names if self.used[n]), None)
        self.used.update(names)
        if twice is not None:
            again = (a.slots for layer in self.layers for a in layer.axes if layer.name == name or a.tensor in names)
            self.seal(again, f"the parameter {twice} is used more than once")


def canonical_name(func: Callable[..., Any]) -> str:
    """Return a function's name without its module, in-place underscores and operator dunders."""
    name = (resolve_name(func) or getattr(func, "__name__", repr(func))).removesuffix(".__get__")
    return str(name).rpartition(".")[2].strip("_")


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


# -- functions with a weight -----------------------------------------------------------------------------------------


@_rule("linear")
def _linear(t: Tracer, name: str, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _weighted(t, name, out, -1, input, weight, bias)


@_rule("conv1d", "conv2d", "conv3d")
def _conv(
    t: Tracer,
    name: str,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Tensor | None:
    dim = input.dim() - weight.dim() + 1
    if groups == 1:
        return _weighted(t, name, out, dim, input, weight, bias)
    if groups == input.shape[dim]:
        return _depthwise(t, name, out, dim, input, weight, bias)
    _work(t, name, out, out.shape[dim], weight)
    return t.seal_inputs(name, (input,), f"its channels enter a grouped {name} ({t.owner(weight)})")


def _weighted(
    t: Tracer, name: str, out: Tensor, dim: int, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Consume the channels of the input and produce fresh ones."""
    rows, columns = t.same.fresh(weight.shape[0]), t.along(input, dim)
    _work(t, name, out, weight.shape[0], weight)
    weight_name, bias_name = t.owner(weight), t.owner(bias)
    labels = _along_dim(rows, out, dim)
    if weight_name is None or (bias is not None and bias_name is None):
        t.seal_inputs(name, (input,), f"its channels enter a {name} whose weight is not a parameter of the model")
        t.seal([rows], f"the weight of its {name} is not a parameter of the model")
        return labels
    axes = [Axis(weight_name, 0, Role.ROW, rows)]
    if bias_name is not None:
        axes.append(Axis(bias_name, 0, Role.ROW, rows))
    if columns is None:
        t.seal_inputs(name, (input,), f"{weight_name} reads it along another dimension than its channels")
    else:
        axes.append(Axis(weight_name, 1, Role.COLUMN, columns))
    t.add_layer(name, (weight_name, bias_name), axes)
    return labels


def _depthwise(
    t: Tracer, name: str, out: Tensor, dim: int, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor | None:
    """Follow the channels of the input: each has filters of its own."""
    _work(t, name, out, weight.shape[0], weight)
    channels, weight_name = t.along(input, dim), t.owner(weight)
    if channels is None or (channels < 0).any():
        return t.seal_inputs(name, (input,), f"{weight_name} is depthwise over something else than channels")
    slots = channels.repeat_interleave(weight.shape[0] // channels.numel())
    return _follow(t, name, out, dim, slots, weight, bias)


@_rule("batch_norm")
def _batch_norm(
    t: Tracer,
    name: str,
    out: Tensor,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: object,
    **__: object,
) -> Tensor | None:
    slots = t.along(input, 1)
    t.works.append(Work(name, out[:, :1].numel() // t.samples, slots=slots))
    if running_mean is None:
        return t.seal_inputs(name, (input,), "its batch norm keeps no running statistics")
    if slots is None:
        return t.seal_inputs(name, (input,), "its batch norm runs over another dimension than its channels")
    return _follow(t, name, out, 1, slots, weight, bias, running_mean, running_var)


@_rule("prelu")
def _prelu(t: Tracer, name: str, out: Tensor, input: Tensor, weight: Tensor) -> Tensor | None:
    _activation_work(t, name, out, t.labels(input))
    if weight.numel() == 1:
        return t.labels(input)
    slots = t.along(input, 1)
    if slots is None:
        return t.seal_inputs(name, (input,), "its PReLU runs over another dimension than its channels")
    return _follow(t, name, out, 1, slots, weight)


def _follow(t: Tracer, name: str, out: Tensor, dim: int, slots: Tensor, *followers: Tensor | None) -> Tensor | None:
    """Hand the channels on through a layer with one entry per channel in each of its tensors."""
    names = [t.owner(tensor) for tensor in followers if tensor is not None]
    known = [n for n in names if n is not None]
    if len(known) < len(names):
        return t.seal([slots], f"its channels enter a {name} whose tensors are not the model's own")
    if known:
        t.add_layer(name, (t.owner(x) for x in followers[:2]), [Axis(n, 0, Role.FOLLOW, slots) for n in known])
    return _along_dim(slots, out, dim)


# -- functions without a weight --------------------------------------------------------------------------------------

_ACTIVATIONS = (
    "relu relu6 hardtanh leaky_relu rrelu threshold hardswish hardsigmoid elu selu celu gelu silu mish softplus "
    "softsign sigmoid logsigmoid tanh tanhshrink hardshrink softshrink"
).split()
_UNARY = (
    "neg abs exp log log1p expm1 sqrt rsqrt square reciprocal sin cos erf clone contiguous detach float double half "
    "bfloat16 to dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout identity"
).split()
_BINARY = "add sub mul div truediv pow iadd isub imul idiv itruediv radd rsub rmul rdiv rtruediv rpow".split()
_POOLS = {
    f"{kind}{n}d": n
    for n in (1, 2, 3)
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool")
}
_READS_VALUES = {"item", "tolist", "numpy", "bool", "int", "float", "setitem"}
_WITH_WEIGHT = (*LINEAR, "batch_norm", "prelu")


@_rule(*_ACTIVATIONS, *_UNARY)
def _elementwise(t: Tracer, name: str, out: Tensor, input: Tensor, *_: object, **__: object) -> Tensor | None:
    labels = t.labels(input)
    if name in _ACTIVATIONS:
        _activation_work(t, name, out, labels)
    return labels


@_rule(*_BINARY)
def _binary(t: Tracer, name: str, out: Tensor, input: object, other: object, **_: object) -> Tensor | None:
    first, second = (_aligned(t, x, out) for x in (input, other))
    if first is None or second is None:
        return first if second is None else second
    narrow, wide = _stretched(t, (input, other), (first, second))
    if narrow:
        t.seal_inputs(name, narrow, f"{name} stretches it over other channels")
        return wide[0].clamp(min=-1) if len(wide) == 1 else None
    first, second = torch.broadcast_tensors(first, second)
    foreign = (first == _FOREIGN) | (second == _FOREIGN)
    if foreign.any():
        t.seal([first[foreign], second[foreign]], f"{name} joins it with a tensor that does not grow with it")
    pairs = torch.stack([first.flatten(), second.flatten()])[:, ((first >= 0) & (second >= 0)).flatten()]
    for a, b in pairs.unique(dim=1).T.tolist():
        t.same.union(a, b)
    return torch.maximum(first, second).clamp(min=-1)


def _stretched(
    t: Tracer, operands: tuple[Any, Any], labels: tuple[Tensor, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the operands that broadcasting repeats along the other's channels, and the labels of those channels."""
    narrow, wide = [], []
    for operand, other in zip(operands, reversed(labels), strict=True):
        shape = (1,) * (other.dim() - operand.dim()) + operand.shape
        if t.labels(operand) is not None and any(n == 1 < m for n, m in zip(shape, other.shape, strict=True)):
            narrow.append(operand)
            wide.append(other)
    return narrow, wide


_FOREIGN = -2  # a slot with an entry of its own that belongs to no channel


def _aligned(t: Tracer, operand: object, out: Tensor) -> Tensor | None:
    """Return labels with the dimensions of `out`; entries that would have to grow but cannot are foreign."""
    labels = t.labels(operand)
    if not isinstance(operand, Tensor) or (labels is None and operand.numel() == 1):
        return None
    if labels is None:
        labels = torch.full((1,) * operand.dim(), -1)
    pad = (1,) * (out.dim() - operand.dim())
    labels = labels.reshape(pad + labels.shape)
    wide = torch.tensor([size > 1 for size in pad + operand.shape])
    if bool((labels < 0).any()) and bool(wide[1:].any()):
        # Without channels, only the batch and dimensions of size one are harmless beside channels.
        shape = [s if d else 1 for d, s in enumerate(pad + operand.shape)]
        labels = labels.expand(shape).clone()
        labels[labels < 0] = _FOREIGN
    return labels


@_rule(*_POOLS)
def _pool(t: Tracer, name: str, out: Tensor, input: Tensor, *_: object, **__: object) -> Tensor | None:
    labels = t.labels(input)
    if labels is not None and any(size > 1 for size in labels.shape[-_POOLS[name] :]):
        return t.seal_inputs(name, (input,), f"{name} pools across its channels")
    return labels


@_rule("mean", "sum", "amax", "amin")
def _reduce(
    t: Tracer, name: str, out: Tensor, input: Tensor, dim: Any = None, keepdim: bool = False, **_: object
) -> Tensor | None:
    labels = t.labels(input)
    if labels is None:
        return None
    dims = [d % labels.dim() for d in (range(labels.dim()) if dim is None else [dim] if isinstance(dim, int) else dim)]
    kept = [n for d, n in enumerate(input.shape) if d and d not in dims]
    # The labels of a single channel do not say which way it runs: a dimension of size one must be left for it.
    if any(labels.shape[d] > 1 for d in dims) or (labels.numel() == 1 and 1 not in kept):
        return t.seal_inputs(name, (input,), f"{name} reduces over its channels")
    return labels.amax(tuple(dims), keepdim)


@_rule("flatten", "reshape", "view", "squeeze", "unsqueeze")
def _reshape(t: Tracer, name: str, out: Tensor, input: Tensor, *args: object, **kwargs: object) -> Tensor | None:
    labels = t.labels(input)
    if labels is None:
        return None
    return _compressed(labels.expand(input.shape).reshape(out.shape))


def _compressed(labels: Tensor) -> Tensor:
    """Drop the dimensions along which labels do not change."""
    for dim in range(labels.dim()):
        first = labels.narrow(dim, 0, 1)
        if torch.equal(first.expand_as(labels), labels):
            labels = first
    return labels


def _along_dim(slots: Tensor, out: Tensor, dim: int) -> Tensor:
    """Return labels that run along one dimension of `out`."""
    shape = [1] * out.dim()
    shape[dim] = slots.numel()
    return slots.reshape(shape)


def _work(t: Tracer, name: str, out: Tensor, rows: int, weight: Tensor) -> None:
    t.works.append(Work(name, out.numel() // (t.samples * rows), weight=t.owner(weight)))


def _activation_work(t: Tracer, name: str, out: Tensor, labels: Tensor | None) -> None:
    slots = torch.full((1,), -1) if labels is None else labels.flatten()
    t.works.append(Work(name, out.numel() // (t.samples * slots.numel()), slots=slots))


# -- from labels to groups -------------------------------------------------------------------------------------------


def _build(t: Tracer) -> ChannelGraph:
    """Number the channels group by group and translate everything that was noted."""
    sealed: dict[int, str] = {}
    for channel, reason in t.sealed.items():
        sealed.setdefault(t.same.find(channel), reason)
    drafts = _components(t)
    number = torch.full((len(t.same.parent) + 2,), -1)
    roots = [t.same.find(channel) for channel in range(len(t.same.parent))]
    place = {root: n for n, root in enumerate(root for draft in drafts for root in draft[0])}
    number[: len(roots)] = torch.tensor([place.get(root, -1) for root in roots], dtype=torch.int64)
    # Slots of -1 index the last entry, which is -1 as well.
    layers = {id(layer): _renumbered(layer, number) for layer in t.layers}
    groups, first = [], 0
    for members, producers in drafts:
        inside = range(first, first + len(members))
        all_layers = list(layers.values())
        reason = next((sealed[root] for root in members if root in sealed), "")
        consumers = _with_role(all_layers, Role.COLUMN, inside)
        if not reason and any(not _covers(layers[id(p)], inside) for p in producers):
            reason = f"its producers {', '.join(p.name for p in producers)} share only some of their channels"
        groups.append(
            ChannelGroup(
                name=str(producers[0]),
                width=len(members),
                first=first,
                producers=tuple(layers[id(p)] for p in producers),
                followers=_with_role(all_layers, Role.FOLLOW, inside),
                consumers=consumers,
                reason=reason or ("" if consumers else "nothing reads it linearly"),
            )
        )
        first += len(members)
    works = tuple(
        Work(w.kind, w.positions, w.weight, number[w.slots] if w.slots is not None else None) for w in t.works
    )
    shapes = {name: parameter.shape for name, parameter in t.model.named_parameters()}
    return ChannelGraph(tuple(groups), tuple(layers.values()), works, shapes)


def _components(t: Tracer) -> list[tuple[list[int], list[Layer]]]:
    """Gather the channels that share a producer: (roots in the first producer's order, producers) per group."""
    producers = [layer for layer in t.layers if any(axis.role is Role.ROW for axis in layer.axes)]
    rows = {
        id(layer): list(
            dict.fromkeys(t.same.find(c) for a in layer.axes if a.role is Role.ROW for c in a.slots.tolist())
        )
        for layer in producers
    }
    group_of = _UnionFind()
    group_of.fresh(len(t.same.parent))
    for members in rows.values():
        for member in members:
            group_of.union(members[0], member)
    drafts: dict[int, tuple[list[int], list[Layer]]] = {}
    for layer in producers:
        members, layers = drafts.setdefault(group_of.find(rows[id(layer)][0]), ([], []))
        members.extend(root for root in rows[id(layer)] if root not in set(members))
        layers.append(layer)
    return list(drafts.values())


def _renumbered(layer: Layer, number: Tensor) -> Layer:
    axes = tuple(Axis(a.tensor, a.dim, a.role, number[a.slots]) for a in layer.axes)
    return replace(layer, axes=axes)


def _with_role(layers: list[Layer], role: Role, channels: range) -> tuple[Layer, ...]:
    low, high = channels.start, channels.stop
    return tuple(
        layer
        for layer in layers
        if any(a.role is role and bool(((a.slots >= low) & (a.slots < high)).any()) for a in layer.axes)
    )


def _covers(producer: Layer, channels: range) -> bool:
    """Whether a producer has the same number of rows for every channel of the group."""
    slots = next(a.slots for a in producer.axes if a.role is Role.ROW)
    counts = torch.bincount(slots[slots >= 0], minlength=channels.stop)[channels.start : channels.stop]
    return bool(counts.min() > 0) and bool(counts.min() == counts.max())
