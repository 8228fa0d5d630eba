"""The door for functions that the trace does not know: say what they do to channels, and networks with them can grow.

What is registered announces its calls, as PyTorch's own functions do, to whoever follows a run: the tracer asks its
rule, and the tape of the splitting matrices differentiates it as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, resolve_name

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.functions import KINDS, Kind, canonical_name, enter
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import Rule, TracedCall
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.rules.elementwise import meet_all
from nni_s3d.growth.graph.rules.reductions import resize
from nni_s3d.growth.graph.rules.shapes import reshape
from nni_s3d.growth.modules import tensors

_APPLIES: dict[type, Callable[..., Any]] = {}  # `apply` of registered autograd functions before they announced it


def _elementwise(notes: Notes, call: TracedCall, out: Tensor, *args: Any, **kwargs: Any) -> Any:
    entering = tensors((args, kwargs))
    first = next((x for x in entering if notes.labels(x) is not None), entering[0])
    notes.note_activation(call.name, out, notes.labels(first))
    return meet_all(notes, call.name, out, entering)


_FUNCTIONS = {
    "elementwise": (Kind.ACTIVATION, Rule(_elementwise, ("args", "kwargs"), counts=False)),
    "pool": (Kind.SAMPLE, Rule(resize, counts=False)),
    "reshape": (Kind.RESHAPE, Rule(reshape, counts=False)),
}


def register_function(func: Callable[..., Any], kind: str = "elementwise") -> Callable[..., Any]:
    """Say what a function does to channels, so that networks that call it can grow.

    Args:
        func: a function of PyTorch that no rule knows, a function of your own, or a `torch.autograd.Function`. It must
            be differentiable twice.
        kind: "elementwise": every element of the result depends on the elements of the tensors at the same place, as
            broadcasting lays them over each other; a parameter with one entry per channel grows with the channels.
            "pool": every channel by itself, along dimension 1; the positions behind it may be mixed.
            "reshape": the same elements in other places or another shape, of tensors of any type.

    Returns:
        The function to call in the network: `func` itself if it is PyTorch's own. Calls of `func.apply` are seen
        without that, if `func` is a `torch.autograd.Function`.

    Raises:
        ConfigError: there is no such kind, or the function is known already.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> from torch import nn
        >>> def cubed(x):
        ...     return x**3
        >>> cubed = s3d.register_function(cubed, "elementwise")
        >>> cubed(torch.tensor(2.0))
        tensor(8.)
    """
    if kind not in _FUNCTIONS:
        raise ConfigError(f"kind: expected one of {', '.join(_FUNCTIONS)}, got {kind!r}")
    told, rule = _FUNCTIONS[kind]
    if resolve_name(func) is not None:
        name, announced = canonical_name(func), func
        if name in KINDS and RULES[name] not in [rule for _, rule in _FUNCTIONS.values()]:
            raise ConfigError(f"func: expected a function without a rule, got {name}, {KINDS[name].value}")
    elif isinstance(func, type) and issubclass(func, torch.autograd.Function):
        name, announced = full_name(func), _announcing(_APPLIES.setdefault(func, func.apply))
        func.apply = staticmethod(announced)
    else:
        name, announced = full_name(func), _announcing(func)
    enter(announced, name, told)
    RULES[name] = rule
    return announced


def full_name(thing: Any) -> str:
    """Return the name of a function or class with its module, which no other one has."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _announcing(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, which lets whoever follows the run see its calls."""

    @wraps(func)
    def announced(*args: Any, **kwargs: Any) -> Any:
        entering = tensors((args, kwargs))
        if has_torch_function(entering):
            return handle_torch_function(announced, entering, *args, **kwargs)
        return func(*args, **kwargs)

    return announced
