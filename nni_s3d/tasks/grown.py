"""Keep a grown network in a file that can run no code, and rebuild it from the constructor of the network it grew from.

The file is a safetensors file; beside the tensors it has the sizes that the layers say of themselves, and the integers
among the attributes of other modules, of which some are widths.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nni_s3d.errors import ModelError, StoreError, first_line
from nni_s3d.growth.surgery.install import install

# What layers say of their sizes; nothing else is ever set from a file, but for integers where there are integers.
_SIZES = [
    *"in_features out_features in_channels out_channels groups num_features num_parameters num_channels".split(),
    "normalized_shape",
]
_KEY = "nni_s3d.sizes"


def save_grown(model: nn.Module, path: str | Path) -> None:
    """Write the parameters and buffers of a network, and the sizes of its layers.

    Raises:
        StoreError: the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(model).items()}
    sizes = {name: _sizes(module) for name, module in model.named_modules() if _sizes(module)}
    try:
        save_file(tensors, Path(path), metadata={_KEY: json.dumps(sizes)})
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: expected a file that can be written, got: {first_line(error)}") from error


def load_grown(build: Callable[[], nn.Module], path: str | Path) -> nn.Module:
    """Return the network that `save_grown` wrote.

    Args:
        build: returns the network that it grew from, with any weights.
        path: the file.

    Raises:
        StoreError: the file is missing or no such file.
        ModelError: the network that was built has other layers than the one in the file.
    """
    tensors, sizes = _read(Path(path))
    model = build()
    built = _tensors(model)
    for name in (*built, *tensors):
        if name not in built or name not in tensors:
            where = "the file" if name in built else "the network that was built"
            raise ModelError(f"{name}: expected it in {where} too, got none; build the network that it grew from")
        if built[name].dim() != tensors[name].dim():
            raise ModelError(f"{name}: expected {built[name].dim()} dimensions, got {tensors[name].dim()} in {path}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.shape == built[name].shape:
                built[name].copy_(tensor)  # in place, so that what is tied to it stays so
            else:
                install(model, {name: tensor.to(built[name])}, ())
    for name, module in model.named_modules():
        for attribute in _sizes(module).keys() & sizes.get(name, {}).keys():
            setattr(module, attribute, _exchanged(getattr(module, attribute), sizes[name][attribute]))
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    try:
        with safe_open(path, framework="pt") as file:
            sizes = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, sizes  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = "none" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise StoreError(f"{path}: expected a file that save_grown wrote, got {reason}") from error


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a state dict, each tied one once."""
    first_names: dict[int, str] = {}
    state: Mapping[str, Any] = model.state_dict(keep_vars=True)
    return {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and first_names.setdefault(id(tensor), name) == name
    }


def _sizes(module: nn.Module) -> dict[str, Any]:
    """Return what a module says of its sizes; if it is not PyTorch's own, all attributes with integers in them."""
    known = {name: getattr(module, name, None) for name in _SIZES}
    if not type(module).__module__.startswith("torch."):
        known |= vars(module)
    integers = ((name, _integers(value)) for name, value in known.items())
    return {name: value for name, value in integers if value is not None}


def _integers(value: object) -> Any:
    """Return an integer, or a list of those in a tuple or list with None for all else; None if there are none."""
    if type(value) in (tuple, list):
        found = [_integers(element) for element in cast(Sequence[object], value)]
        return found if any(element is not None for element in found) else None
    return value if type(value) is int else None


def _exchanged(old: Any, saved: object) -> Any:
    """Return a value with the integers that were saved in the places of its own."""
    if type(old) in (tuple, list) and isinstance(saved, list) and len(old) == len(saved):
        return type(old)(map(_exchanged, old, saved))
    return saved if type(old) is type(saved) is int else old
