"""Let whoever follows a run see the calls of autograd functions that people write themselves.

`torch.autograd.Function.apply` announces no call, as PyTorch's own functions do. What happens inside could be followed,
but its derivatives are those of a `backward` that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any

from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function

from nni_s3d.growth.modules import tensors

_OWN = ("torch.", "nni_s3d.")  # such as checkpoints, through which a run is followed


@contextmanager
def announced_functions() -> Iterator[None]:
    """Announce the calls of all autograd functions that are not PyTorch's own, however they are made."""
    # `apply` is often kept (swish = Swish.apply), so it cannot be exchanged; the `forward` that it looks up can.
    exchanged = [(cls, cls.__dict__["forward"]) for cls in _written_by_others(Function) if _is_static(cls)]
    for cls, forward in exchanged:
        cls.forward = staticmethod(_announcing(cls, forward.__func__))
    try:
        yield
    finally:
        for cls, forward in exchanged:
            cls.forward = forward


def _is_static(cls: Any) -> bool:
    return isinstance(cls.__dict__.get("forward"), staticmethod)


def _written_by_others(cls: Any) -> Iterator[Any]:
    for below in cls.__subclasses__():
        if not f"{below.__module__}.".startswith(_OWN):
            yield below
        yield from _written_by_others(below)


@lru_cache(maxsize=256)  # the same function for every run, by which its name is found
def _announcing(cls: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def announced(*args: Any, **kwargs: Any) -> Any:
        entering = tensors((args, kwargs))
        if has_torch_function(entering):
            return handle_torch_function(announced, entering, *args, **kwargs)
        return forward(*args, **kwargs)

    announced.__name__ = cls.__qualname__
    announced.refusal = (  # type: ignore[attr-defined]
        f"its channels enter the autograd function {cls.__qualname__}, whose backward nobody knows",
        "say what it does with nni_s3d.register_function, or write it with PyTorch's functions",
    )
    return announced
