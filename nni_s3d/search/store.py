"""Where the artefacts of lineages are kept: a folder that trials, tuner and reports share, reached by path or URL.

    task.json                      the task that everything here belongs to
    lineages/<label>.json          the settings of a lineage
    lineages/<label>/state.json    how far it has come
    lineages/<label>/<step>.json   what came of a step: its key and the next spec, or why there is none
    <key>/                         one folder per spec: spec.json, metrics.json, weights, plan, checkpoint

Files are written under a temporary name and renamed, so a reader sees a whole file or none. Nothing that is read can
run code: JSON, safetensors, and torch.load with weights_only.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from nni_s3d.errors import StoreError, first_line


def store_url(experiment: Path | None) -> str:
    """Return where an NNI experiment keeps its artefacts: NNI_S3D_STORE, or a folder among its other files.

    Args:
        experiment: the folder of the experiment, if it is known.

    Raises:
        StoreError: neither is known.
    """
    if chosen := os.environ.get("NNI_S3D_STORE"):
        return chosen
    if experiment is None:
        raise StoreError("NNI_S3D_STORE: expected a path or URL, or a process that was started by NNI")
    return str(experiment / "store")


class Store:
    """Reads and writes artefacts below one path or URL that fsspec understands.

    Raises:
        StoreError: from every method: there is no such place, it cannot be reached, or a file there is not what this
            package writes.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self._reaching(url):
            self._fs, self._root = fsspec.core.url_to_fs(url)

    def claim(self, task: dict[str, Any]) -> None:
        """Make this the store of a task, or make sure that it is.

        Raises:
            StoreError: it belongs to another task; nothing in it was touched.
        """
        self.agree({"task.json": task})

    def agree(self, contents: dict[str, Any]) -> None:
        """Write JSON files that are the same wherever they exist already.

        Raises:
            StoreError: one of them has another content; nothing was written.
        """
        missing = {}
        for path, content in contents.items():
            found = self.read_json(path)
            if found is None:
                missing[path] = content
            elif found != (wanted := json.loads(json.dumps(content))):
                differs = sorted(key for key in {*wanted, *found} if wanted.get(key, ...) != found.get(key, ...))
                raise StoreError(
                    f"{self._path(path)}: expected the same settings, got other ones for {', '.join(differs)}; "
                    "use another store or another name"
                )
        for path, content in missing.items():
            self.write_json(path, content)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._reaching(self._path(path)):
            return bool(self._fs.exists(self._path(path)))

    def read_json(self, path: str, *keys: str) -> dict[str, Any] | None:
        """Return the mapping in a JSON file, which has at least these keys, or None if there is no file."""
        content = self._read(path)
        if content is None:
            return None
        found = self._decoded(path, json.loads, content)
        if not isinstance(found, dict) or not found.keys() >= set(keys):
            expected = f"a mapping with {', '.join(keys)}" if keys else "a mapping"
            raise StoreError(f"{self._path(path)}: expected {expected}, got {found!s:.80}")
        return found

    def write_json(self, path: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        self._write(path, json.dumps(content, indent=1).encode())

    def read_tensors(self, path: str) -> dict[str, Tensor] | None:
        """Return the tensors of a safetensors file, all finite, or None if there is none."""
        content = self._read(path)
        if content is None:
            return None
        tensors: dict[str, Tensor] = self._decoded(path, load_safetensors, content)
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise StoreError(f"{self._path(path)}: expected finite numbers, got others in {name}")
        return tensors

    def write_tensors(self, path: str, tensors: dict[str, Tensor]) -> None:
        """Write a safetensors file; what shares memory, such as tied weights, is written once for every name."""
        own = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        self._write(path, save_safetensors(own))

    def read_state(self, path: str) -> Any:
        """Return a checkpoint of state dicts, or None if there is none."""
        content = self._read(path)
        return None if content is None else self._decoded(path, _load_state, content)

    def write_state(self, path: str, state: object) -> None:
        """Write a checkpoint of state dicts."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._write(path, buffer.getvalue())

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        if self.exists(path):
            with self._reaching(self._path(path)):
                self._fs.rm_file(self._path(path))

    def _path(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def _read(self, path: str) -> bytes | None:
        with self._reaching(self._path(path)):
            try:
                return bytes(self._fs.cat_file(self._path(path)))
            except FileNotFoundError:
                return None

    def _write(self, path: str, content: bytes) -> None:
        target = self._path(path)
        temporary = f"{target}.{uuid.uuid4().hex}.tmp"
        with self._reaching(target):
            if self._fs.isdir(target):  # or the file would be moved into it
                raise IsADirectoryError("a directory")
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(temporary, content)
            self._fs.mv(temporary, target)

    @staticmethod
    @contextmanager
    def _reaching(place: str) -> Iterator[None]:
        """Say in one line what any of fsspec's file systems says of a place that it cannot read or write."""
        try:
            yield
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise StoreError(f"{place}: expected a place to read and write, got {reason}") from error

    def _decoded(self, path: str, decode: Callable[[bytes], Any], content: bytes) -> Any:
        try:
            return decode(content)
        except Exception as error:  # what PyTorch says is long, and advises to trust the file
            trouble = f"one that cannot be read ({type(error).__name__})"
            raise StoreError(f"{self._path(path)}: expected a file that this package wrote, got {trouble}") from error


def _load_state(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
