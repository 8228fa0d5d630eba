"""The door for layers that the trace does not know: say which of their dimensions are indexed by channels.

The forward pass of a registered layer becomes one function of its input and its tensors, which the tracer follows by a
rule and the tape of the splitting matrices differentiates as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import handle_torch_function, has_torch_function

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.functions import Kind, enter
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.register_function import full_name
from nni_s3d.growth.graph.rule_table import Rule, TracedCall
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.rules.layers import follow
from nni_s3d.growth.graph.rules.weighted import Weighted, produce

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])
_FORWARDS: dict[type[nn.Module], Callable[..., Any]] = {}  # of registered layers, before they announced them
_SIZES: dict[type[nn.Module], Mapping[str, tuple[str, int]]] = {}  # attributes of registered layers


def register_layer(
    layer: ModuleClass,
    *,
    entries: Mapping[str, int] | None = None,
    rows: Mapping[str, int] | None = None,
    columns: Mapping[str, int] | None = None,
    channel_dim: int = 1,
    sizes: Mapping[str, tuple[str, int]] | None = None,
) -> ModuleClass:
    """Say which dimensions of a layer's parameters are indexed by channels, so that they grow.

    A layer is a follower, with `entries`, or a linear layer, with `rows` and `columns`. Its forward pass takes one
    tensor and returns one; both have their channels along `channel_dim`.

    Args:
        layer: the class, a subclass of `nn.Module`.
        entries: {parameter or buffer: the dimension along which it has one entry per channel}. Each channel of the
            result may depend on its own entries and on the same channel of the input alone. It must be differentiable
            twice in its input.
        rows: {parameter: the dimension along which it has one entry per output channel}: the weight, and a bias if
            there is one. The result must be linear in both together.
        columns: {weight: the dimension along which it has one entry per input channel}. The result must be linear in
            the input, but for the bias.
        channel_dim: the dimension of input and output along which the channels run.
        sizes: {attribute: (parameter or buffer, dimension)} of numbers that the layer keeps of its own sizes, such as
            `num_features`; they are set when it has grown.

    Returns:
        The class.

    Raises:
        ConfigError: `layer` is no module class, or is said to be both a follower and linear, or neither.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> from torch import nn
        >>> class Shift(nn.Module):
        ...     def __init__(self, channels):
        ...         super().__init__()
        ...         self.shift = nn.Parameter(torch.rand(channels))
        ...     def forward(self, x):
        ...         return torch.einsum("nc,c->nc", x, self.shift.exp())
        >>> Shift = s3d.register_layer(Shift, entries={"shift": 0})
        >>> model = nn.Sequential(nn.Linear(4, 8), Shift(8), nn.Tanh(), nn.Linear(8, 2))
        >>> s3d.trace(model, torch.randn(3, 4)).widths
        {'0': 8}
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise ConfigError(f"layer: expected a subclass of nn.Module, got {layer!r}")
    name = full_name(layer)
    if entries and not (rows or columns):
        kind, names = Kind.FOLLOWER, tuple(entries)
        rule = _follower_rule(entries, channel_dim)
    elif rows and columns and len(columns) == 1 and len(rows) <= 2 and set(columns) <= set(rows) and not entries:
        kind, names = Kind.LINEAR, (*columns, *(one for one in rows if one not in columns))
        rule = _linear_rule(dict(rows), dict(columns), channel_dim)
    else:
        raise ConfigError(
            f"{name}: expected entries, or columns of a weight and rows of it and a bias, "
            f"got entries {entries}, rows {rows}, columns {columns}"
        )
    _FORWARDS.setdefault(layer, layer.forward)
    _SIZES[layer] = dict(sizes or {})
    applied = _announce_forward(layer, names)
    enter(applied, name, kind)
    RULES[name] = rule
    return layer


def set_registered_sizes(model: nn.Module) -> None:
    """Let the registered layers of a model say of themselves how large their tensors now are."""
    for module in model.modules() if _SIZES else ():
        for layer in type(module).__mro__:
            for attribute, (name, dim) in _SIZES.get(layer, {}).items():
                setattr(module, attribute, _tensor(module, name).shape[dim])


class _Bare(nn.Module):
    """A layer without the hooks on it, which have run already."""

    def __init__(self, layer: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self._forward = layer, forward

    def forward(self, input: Tensor) -> Any:
        return self._forward(self.layer, input)


def _announce_forward(layer: type[nn.Module], names: tuple[str, ...]) -> Callable[..., Any]:
    """Make the forward pass of a layer one function of its input and of its tensors, and return that function."""
    forward = _FORWARDS[layer]

    def applied(input: Tensor, *values: Tensor | None, module: nn.Module) -> Any:
        given = {}
        for name, value in zip(names, values, strict=False):
            tensor = _tensor(module, name)
            if tensor is not None:  # what is left out, such as the bias of a tangent, is zero
                given[f"layer.{name}"] = torch.zeros_like(tensor) if value is None else value
        return functional_call(_Bare(module, forward), given, (input,))

    @wraps(forward)
    def announced(self: nn.Module, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or not has_torch_function((input,)):
            return forward(self, input, *args, **kwargs)
        entering = (input, *(_tensor(self, name) for name in names))
        return handle_torch_function(applied, entering, *entering, module=self)

    layer.forward = announced
    return applied


def _tensor(module: nn.Module, name: str) -> Any:
    path, _, attribute = name.rpartition(".")
    return getattr(module.get_submodule(path), attribute)


def _follower_rule(entries: Mapping[str, int], channel_dim: int) -> Rule:
    def rule(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *values: Tensor | None, module: object) -> Any:
        weight = next(value for value in values if value is not None)
        notes.note_weight(call.name, call.macs, weight)
        dim = channel_dim % input.dim()
        slots = notes.along(input, dim)
        followers = list(zip(values, entries.values(), strict=True))
        fits = all(value is None or value.shape[d] == input.shape[dim] for value, d in followers)
        if slots is None or not fits or out.shape[dim] != input.shape[dim]:
            reason = f"its channels do not run along dimension {channel_dim} of {call.name}, one for each entry"
            return notes.refuse_inputs(call.name, (input,), reason, "move them there first (movedim)")
        return follow(notes, call.name, slots, followers, notes.spread(slots, out.dim(), dim))

    return Rule(rule, counts=False)


def _linear_rule(rows: Mapping[str, int], columns: Mapping[str, int], channel_dim: int) -> Rule:
    ((weight_name, column),) = columns.items()
    bias_row = next((dim for name, dim in rows.items() if name != weight_name), 0)

    def rule(
        notes: Notes,
        call: TracedCall,
        out: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        module: object,
    ) -> Any:
        notes.note_weight(call.name, call.macs, weight)
        dim, row = channel_dim % input.dim(), rows[weight_name]
        if (input.shape[dim], out.shape[dim]) != (weight.shape[column], weight.shape[row]):
            reason = f"its channels do not run along dimension {channel_dim} of {call.name}, one for each column"
            return notes.refuse_inputs(call.name, (input,), reason, "move them there first (movedim)")
        return produce(notes, Weighted(call.name, input, weight, bias, out, dim, row, column, bias_row))

    return Rule(rule, counts=False)
