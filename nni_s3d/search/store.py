"""Where the artefacts of lineages are kept: a folder that trials, tuner and reports share, reached by path or URL.

    task.json                      the task that everything here belongs to
    lineages/<label>.json          the settings of a lineage
    lineages/<label>/state.json    how far it has come
    lineages/<label>/<step>.json   what came of a step: its key and the next spec, or why there is none
    <key>/                         one folder per spec: spec.json, metrics.json, weights, plan, checkpoint, notes

Every file carries its checksum. `tensor_files` reads and writes tensors here; this file imports no PyTorch, since a
tuner has ten seconds to start. Nothing that is read can run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nni_s3d.errors import DamageError, StoreError
from nni_s3d.search.checksum import KEY, UNKNOWN, trouble_with, with_checksum
from nni_s3d.search.folder import Folder


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


class Store(Folder):
    """Reads and writes artefacts below one path or URL that fsspec understands.

    Raises:
        StoreError: from every method: there is no such place, or it cannot be reached.
        DamageError: from those that read: a file is damaged, or was not written to its place by this package.
    """

    def claim(self, task: dict[str, Any]) -> None:
        """Make this the store of a task, or make sure that it is.

        Raises:
            StoreError: it belongs to another task; nothing in it was touched.
        """
        self.agree({"task.json": task})

    def agree(self, contents: dict[str, Any], but: Collection[str] = ()) -> None:
        """Write JSON files that are the same wherever they exist already, see `Folder.agree`.

        Raises:
            StoreError: one of them has another content, or none of this version; nothing was written.
        """
        for path in contents:
            self._refuse_older(path)
        super().agree(contents, but)

    def read_anyway(self, path: str) -> dict[str, Any]:
        """Return what a file says, nothing if it is missing or damaged, {"error": why} if it cannot be reached."""
        try:
            return self.read_if_whole(path) or {}
        except StoreError as error:
            return {"error": str(error)}

    def _refuse_older(self, path: str) -> None:
        """Refuse a mapping that never had a checksum; what is damaged is another matter."""
        content = super().read_bytes(path) or b""
        try:
            older = isinstance(json.loads(content), dict) and KEY.encode() not in content and b"sha256:" not in content
        except ValueError:
            return
        if older:
            expected = "expected a file with a checksum, got one of another program or of an older version"
            raise StoreError(f"{self.url_of(path)}: {expected}; use another store")

    def read_json(self, path: str, *keys: str) -> dict[str, Any] | None:
        """Return the mapping in a JSON file, which has at least these keys, or None if there is no file."""
        content = super().read_json(path, *keys)
        if content is not None:
            content.pop(KEY, None)
        return content

    def write_json(self, path: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        super().write_json(path, {KEY: UNKNOWN, **content})

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""
        content = super().read_bytes(path)
        if content is not None and (trouble := trouble_with(path, content)):
            raise DamageError(f"{self.url_of(path)}: expected a file as this package wrote it, got {trouble}")
        return content

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a file, with its checksum in the place that was left for it."""
        super().write_bytes(path, with_checksum(path, content))
