"""What a model does only when it is trained is rehearsed too, where its own code asks for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nni_s3d.growth.graph.functions import DROPOUTS, canonical_name
from nni_s3d.growth.modules import call, tensors, untouched_state


def asks_for_training(model: nn.Module) -> bool:
    """Whether the code of some module, beside PyTorch's own, may do something else when the model is trained.

    That is so if it reads `training`, or whether gradients are wanted.
    """
    return _asks(model, "training") or _asks(model, "is_grad_enabled")


@contextmanager
def as_if_training(model: nn.Module) -> Iterator[None]:
    """Let all modules believe that they are trained, but for those that would then do something else by their nature.

    The modes and the buffers are as before in the end.
    """
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = not isinstance(module, nn.modules.batchnorm._NormBase) and not _drops(type(module))
    try:
        with untouched_state(model):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def outputs_in_training(model: nn.Module, inputs: object) -> list[Tensor]:
    """Return what a model puts out as if it were trained, without dropout and with the same random numbers."""
    with as_if_training(model), _NoDropout(), torch.set_grad_enabled(_asks(model, "is_grad_enabled")):
        torch.manual_seed(0)
        return [tensor.detach() for tensor in tensors(call(model, inputs))]


class _NoDropout(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if args and canonical_name(func) in DROPOUTS else func(*args, **(kwargs or {}))


def _drops(kind: type) -> bool:
    """Whether a module only drops some of its input while it is trained, as DropPath and StochasticDepth do."""
    return kind.__name__.lower().startswith(("drop", "stochasticdepth", "featurealphadrop", "alphadrop"))


def _asks(model: nn.Module, name: str) -> bool:
    """Whether the code of some module reads an attribute of this name."""
    kinds: set[Any] = {type(module) for module in model.modules()}
    return any(_class_asks(kind, name) for kind in kinds if not _drops(kind))


@lru_cache(maxsize=4096)
def _class_asks(kind: Any, name: str) -> bool:
    own = (base for base in kind.__mro__ if not base.__module__.startswith("torch."))
    functions = (getattr(x, "__func__", x) for base in own for x in vars(base).values())
    return any(_code_asks(function.__code__, name) for function in functions if isinstance(function, FunctionType))


def _code_asks(code: CodeType, name: str) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return name in code.co_names or any(_code_asks(constant, name) for constant in inner)
