"""Run a module in evaluation mode and hand it back as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.errors import ModelError


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode and restore each one's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def call(model: nn.Module, inputs: object) -> Any:
    """Call a module on a tensor, a tuple or list of positional arguments or a dict of keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def check_device(model: nn.Module, inputs: object, what: str) -> None:
    """Raise ModelError unless all parameters, buffers and input tensors are on one device."""
    first: tuple[str, Any] | None = None
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        first = first or (name, tensor.device)
        if tensor.device != first[1]:
            raise ModelError(f"{name}: expected it on {first[1]}, where {first[0]} is, got {tensor.device}")
    for leaf in tensors(inputs):
        if first is not None and leaf.device != first[1]:
            raise ModelError(f"{what}: expected tensors on {first[1]}, where the model is, got {leaf.device}")


def tensors(tree: object) -> list[Tensor]:
    """Return all tensors in nested tuples, lists, dicts and registered containers."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
