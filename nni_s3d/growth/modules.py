"""Run a module in evaluation mode and hand it back as it was."""

from __future__ import annotations

import copy
import dataclasses
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.errors import ModelError


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode; restore each one's own mode, buffers and the random state afterwards."""
    modes = {module: module.training for module in model.modules()}
    if any(modes.values()):
        model.eval()
    try:
        with untouched_state(model):
            yield
    finally:
        for module, mode in modes.items():
            if module.training != mode:
                module.training = mode


def untouched_random_state() -> AbstractContextManager[None]:
    """Restore the state of the random generators."""
    # To ask for devices takes longer than some networks, and those that were never used have nothing to restore.
    return torch.random.fork_rng(devices=None if torch.cuda.is_initialized() else [])


@contextmanager
def untouched_state(model: nn.Module) -> Iterator[None]:
    """Restore the buffers of a model, which its forward pass may change, and the random state."""
    buffers = [(x, x.detach().clone()) for module in model.modules() for x in module._buffers.values() if x is not None]
    with untouched_random_state():
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    if not torch.equal(buffer, value):  # writing would spoil a graph that has kept the buffer
                        buffer.copy_(value)


@contextmanager
def modules_restored(model: nn.Module) -> Iterator[None]:
    """Give every module its own tensors and attributes back in the end. No tensor is copied."""
    # Modules that are compiled, or of TorchScript, keep theirs elsewhere.
    modules = [m for m in model.modules() if isinstance(vars(m).get("_parameters"), dict)]
    before = [(m, dict(vars(m)), dict(m._parameters), dict(m._buffers)) for m in modules]
    try:
        yield
    finally:
        for module, attributes, parameters, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a deep copy, of a model too that keeps results of its last pass, which autograd does not let be copied."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    results = {id(x): x.detach().clone() for x in attributes if isinstance(x, Tensor) and not x.is_leaf}
    return copy.deepcopy(model, results | (memo or {}))


def call(model: Callable[..., Any], inputs: object) -> Any:
    """Call a module or function on a tensor, a tuple or list of positional arguments or a mapping of keywords."""
    with _uncompiled():
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, (tuple, list)):
            return model(*inputs)
        return model(inputs)


def _uncompiled() -> AbstractContextManager[object]:
    """Run the Python code of what `torch.compile` has compiled, whose calls can be followed."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def check_device(model: nn.Module, inputs: object, name_of_inputs: str) -> None:
    """Raise ModelError unless all parameters, buffers and input tensors are on one device."""
    first: tuple[str, Any] | None = None
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                first = first or (f"{path}.{name}".lstrip("."), tensor.device)
                if tensor.device != first[1]:
                    where = f"{path}.{name}".lstrip(".")
                    raise ModelError(f"{where}: expected it on {first[1]}, where {first[0]} is, got {tensor.device}")
    for leaf in tensors(inputs):
        if first is not None and leaf.device != first[1]:
            raise ModelError(f"{name_of_inputs}: expected tensors on {first[1]}, where the model is, got {leaf.device}")


def tensors(tree: object) -> list[Tensor]:
    """Return all tensors in nested tuples, lists, mappings, registered containers and dataclasses."""
    gathered: list[Tensor] = []
    _gather(tree, gathered)
    return gathered


def _gather(tree: object, gathered: list[Tensor]) -> None:
    """Append the tensors of a tree; the containers of almost every call are walked without pytree, which is slow."""
    kind = type(tree)
    if isinstance(tree, Tensor):
        gathered.append(tree)
    elif kind is tuple or kind is list or kind is dict:
        for branch in tree.values() if isinstance(tree, dict) else cast(Sequence[object], tree):
            if type(branch) not in _PLAIN:
                _gather(branch, gathered)
    elif kind not in _PLAIN:
        leaves = pytree.tree_leaves(tree)
        if len(leaves) != 1 or leaves[0] is not tree:
            _gather(leaves, gathered)
        elif isinstance(tree, Mapping):  # such as a UserDict, which tokenizers return
            _gather(list(tree.values()), gathered)
        elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
            _gather([getattr(tree, field.name) for field in dataclasses.fields(tree)], gathered)


def map_tensors(function: Callable[[Tensor], Tensor], tree: object) -> Any:
    """Return the same containers with other tensors in the places of all that `tensors` finds."""

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if isinstance(leaf, Mapping):
            values = {key: map_tensors(function, value) for key, value in leaf.items()}
            if not isinstance(leaf, MutableMapping):
                return values
            leaf = copy.copy(leaf)
            leaf.update(values)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            names = [field.name for field in dataclasses.fields(leaf)]
            leaf, old = copy.copy(leaf), leaf
            for name in names:  # of a frozen one too
                object.__setattr__(leaf, name, map_tensors(function, getattr(old, name)))
        return leaf

    return pytree.tree_map(mapped, tree)


_PLAIN = {int, float, bool, str, type(None), type(...), torch.dtype, torch.device, torch.Size}


def innermost(model: nn.Module, error: BaseException) -> str:
    """Return the name of the innermost module of a model whose code an error came through."""
    names = {id(module): name for name, module in model.named_modules()}
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    inside = [names[id(owner)] for frame in frames if id(owner := frame.f_locals.get("self")) in names]
    return next((name for name in reversed(inside) if name), type(model).__name__)
