"""Calls of TorchScript, which announce themselves to nobody, are announced while a run is followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function

from nni_s3d.growth.modules import tensors

_KINDS: tuple[Any, ...] = (torch._C.ScriptFunction, torch._C.ScriptMethod)


@contextmanager
def script_calls_announced() -> Iterator[None]:
    """Let whoever follows a run see calls of TorchScript functions and modules, under the name `torchscript`."""
    before = [kind.__call__ for kind in _KINDS]
    for kind, original in zip(_KINDS, before, strict=True):
        kind.__call__ = _announcing(original)
    try:
        yield
    finally:
        for kind, original in zip(_KINDS, before, strict=True):
            kind.__call__ = original


def _announcing(original: Callable[..., Any]) -> Callable[..., Any]:
    def torchscript(script: Any, *args: Any, **kwargs: Any) -> Any:
        given = tensors((args, kwargs))
        if has_torch_function(given):
            return handle_torch_function(torchscript, given, script, *args, **kwargs)
        return original(script, *args, **kwargs)

    return torchscript
