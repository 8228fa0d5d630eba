"""Where the artefacts of lineages are kept: a folder that trials, tuner and reports share, reached by path or URL.

    task.json                      the task that everything here belongs to
    lineages/<label>.json          the settings of a lineage
    lineages/<label>/state.json    how far it has come
    lineages/<label>/<step>.json   what came of a step: its key and the next spec, or why there is none
    <key>/                         one folder per spec: spec.json, metrics.json, weights, plan, checkpoint, notes

Files are written under a temporary name and renamed, so a reader sees a whole file or none. `tensor_files` reads and
writes tensors here; this file imports no PyTorch, since a tuner has ten seconds to start. Nothing that is read can run
code.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

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
            stored, wanted = self.read_json(path), json.loads(json.dumps(content))
            if stored is None:
                missing[path] = content
            elif stored != wanted:
                differs = sorted(key for key in {*wanted, *stored} if wanted.get(key, ...) != stored.get(key, ...))
                raise StoreError(
                    f"{self.url_of(path)}: expected the same settings, got other ones for {', '.join(differs)}; "
                    "use another store or another name"
                )
        for path, content in missing.items():
            self.write_json(path, content)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._reaching(self.url_of(path)):
            return bool(self._fs.exists(self.url_of(path)))

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders in the store, or in a folder there, in their order.

        Raises:
            StoreError: there is no such store or folder.
        """
        folder = self.url_of(path).rstrip("/")
        with self._reaching(folder):
            entries = self._fs.ls(folder, detail=True)
        return sorted(e["name"].rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory")

    def read_json(self, path: str, *keys: str) -> dict[str, Any] | None:
        """Return the mapping in a JSON file, which has at least these keys, or None if there is no file."""
        text = self.read_bytes(path)
        if text is None:
            return None
        content = self.decode(path, text, json.loads)
        if not isinstance(content, dict) or not content.keys() >= set(keys):
            expected = f"a mapping with {', '.join(keys)}" if keys else "a mapping"
            raise StoreError(f"{self.url_of(path)}: expected {expected}, got {content!s:.80}")
        return content

    def write_json(self, path: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        self.write_bytes(path, json.dumps(content, indent=1).encode())

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        if self.exists(path):
            with self._reaching(self.url_of(path)):
                self._fs.rm_file(self.url_of(path))

    def url_of(self, path: str) -> str:
        """Return where a file is, for messages."""
        return f"{self._root.rstrip('/')}/{path}"

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""
        with self._reaching(self.url_of(path)):
            try:
                return bytes(self._fs.cat_file(self.url_of(path)))
            except FileNotFoundError:
                return None

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a file under a temporary name, and rename it."""
        target = self.url_of(path)
        temporary = f"{target}.{uuid.uuid4().hex}.tmp"
        with self._reaching(target):
            if self._fs.isdir(target):  # or the file would be moved into it
                raise IsADirectoryError("a directory")
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(temporary, content)
            self._fs.mv(temporary, target)

    def decode(self, path: str, content: bytes, decoder: Callable[[bytes], Any]) -> Any:
        """Return what a decoder makes of the content of a file, or raise StoreError that names the file."""
        try:
            return decoder(content)
        except Exception as error:  # what PyTorch says is long, and advises to trust the file
            trouble = f"one that cannot be read ({type(error).__name__})"
            raise StoreError(f"{self.url_of(path)}: expected a file that this package wrote, got {trouble}") from error

    @staticmethod
    @contextmanager
    def _reaching(place: str) -> Iterator[None]:
        """Say in one line what any of fsspec's file systems says of a place that it cannot read or write."""
        try:
            yield
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise StoreError(f"{place}: expected a place to read and write, got {reason}") from error
