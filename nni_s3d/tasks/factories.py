"""Networks by the name of the function that makes them, with widths that the function need not know of."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nni_s3d.errors import ConfigError, ModelError, first_line, place_of
from nni_s3d.growth.surgery.widening import widen
from nni_s3d.growth.trace import trace


def build_network(
    name: str, settings: Mapping[str, Any], widths: Mapping[str, int] | None, example: Callable[[], Tensor]
) -> nn.Module:
    """Return a network with fresh weights.

    Args:
        name: "package.module:function". A function that takes `widths` is given them; what any other returns is
            widened to them, and the names of the widths are those of its channel groups.
        settings: further keyword arguments of the function.
        widths: None for those that the function chooses.
        example: returns inputs to trace the network on, if it must be widened.

    Raises:
        ConfigError: the function cannot be imported, does not take its arguments, or makes something else; or a width
            is below that of the network.
        ModelError: the network cannot be traced or does not have widths like these.
    """
    factory = import_factory(name)
    known = takes_widths(factory)
    try:
        model = factory(**settings, **({"widths": widths} if known and widths is not None else {}))
    except ConfigError as error:
        raise ConfigError(f"model.{error}") from error
    except (Exception, SystemExit) as error:  # whatever somebody's code says of arguments that do not suit it
        reason = f"{type(error).__name__}: {first_line(error)}{place_of(error)}"
        raise ConfigError(f"model: expected arguments that {name} takes, got {reason}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: expected {name} to return an nn.Module, got {type(model).__name__}")
    if known or widths is None:
        return model
    try:
        graph = trace(model, example())
        return widen(model, graph, widths) if widths != graph.widths else model
    except (ConfigError, ModelError) as error:
        raise type(error)(f"model: {error}") from error


def look_in(folder: Path) -> None:
    """Let factories be found in a folder, after all other places; no other folder is ever added."""
    if (place := str(folder.resolve())) not in sys.path:
        sys.path.append(place)


def import_factory(name: str) -> Callable[..., Any]:
    """Import "package.module:function".

    Raises:
        ConfigError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # importing runs the module
        reason = f"{type(error).__name__}: {first_line(error)}{place_of(error)}"
        if isinstance(error, ModuleNotFoundError):
            reason += "; is its folder on PYTHONPATH?"
        raise ConfigError(f"model.factory: expected package.module:function, got {name!r}: {reason}") from error
    return factory


def takes_widths(factory: Callable[..., Any]) -> bool:
    """Whether a function has an argument of this name."""
    try:
        return "widths" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
