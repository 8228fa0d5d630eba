"""Tensors and checkpoints in a store: safetensors, and torch.load with weights_only, so that no file can run code."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from nni_s3d.errors import DamageError
from nni_s3d.search.checksum import KEY, UNKNOWN
from nni_s3d.search.store import Store


def read_tensors(store: Store, path: str) -> dict[str, Tensor] | None:
    """Return the tensors of a safetensors file, or None if there is none.

    Raises:
        StoreError: the file cannot be reached.
        DamageError: it is damaged, or holds numbers that are not finite.
    """
    content = store.read_bytes(path)
    if content is None:
        return None
    tensors: dict[str, Tensor] = store.decode(path, content, load)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DamageError(f"{store.url_of(path)}: expected finite numbers, got infinity or NaN in {name}")
    return tensors


def write_tensors(store: Store, path: str, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file; tensors that share memory, such as tied weights, are written once for every name."""
    unshared = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    store.write_bytes(path, save(unshared, {KEY: UNKNOWN}))


def read_checkpoint(store: Store, path: str) -> Any:
    """Return a checkpoint of state dicts, or None if there is none.

    Raises:
        StoreError: the file cannot be reached.
        DamageError: it is damaged.
    """
    content = store.read_bytes(path)
    return None if content is None else store.decode(path, content, _load_checkpoint)


def write_checkpoint(store: Store, path: str, state: object) -> None:
    """Write a checkpoint of state dicts."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = UNKNOWN.encode()
    store.write_bytes(path, buffer.getvalue())


def _load_checkpoint(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
