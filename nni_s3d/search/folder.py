"""Files below one path or URL that fsspec understands, each read and written as a whole.

A file is written under a temporary name and renamed, so a reader sees a whole file or none, and what cannot be written
leaves what was there. This file imports no PyTorch, since a tuner has ten seconds to start.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

import fsspec

from nni_s3d.errors import DamageError, StoreError, first_line

_logger = logging.getLogger(__name__)
TEMPORARY = ".tmp"  # how the name of a file ends that is being written


class Folder:
    """Reads and writes files below one path or URL that fsspec understands.

    Raises:
        StoreError: from every method: there is no such place, or it cannot be reached.
        DamageError: from those that read: a file there is not what this package writes.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self._reaching(url):
            self._fs, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)  # others write here, too

    def agree(self, contents: dict[str, Any], but: Collection[str] = ()) -> None:
        """Write JSON files that are the same wherever they exist already.

        Args:
            contents: {path: content}.
            but: keys that may differ, and are written anew then.

        Raises:
            StoreError: one of them has another content; nothing was written.
        """
        new = {}
        for path, content in contents.items():
            stored, wanted = self.read_if_whole(path), json.loads(json.dumps(content))
            if stored == wanted:
                continue
            there = wanted if stored is None else stored
            differs = sorted(k for k in {*wanted, *there} - {*but} if wanted.get(k, ...) != there.get(k, ...))
            if differs:
                raise StoreError(
                    f"{self.url_of(path)}: expected the same settings, got other ones for {', '.join(differs)}; "
                    "use another store or another name"
                )
            new[path] = content
        for path, content in new.items():
            self.write_json(path, content)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._reaching(self.url_of(path)):
            return bool(self._fs.exists(self.url_of(path)))

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders here, or in a folder here, in their order.

        Raises:
            StoreError: there is no such folder.
        """
        return [name for name, kind in self._entries(path) if kind == "directory"]

    def files(self, path: str = "") -> list[str]:
        """Return the names of the files here, or in a folder here, in their order.

        Raises:
            StoreError: there is no such folder.
        """
        return [name for name, kind in self._entries(path) if kind == "file"]

    def _entries(self, path: str) -> list[tuple[str, str]]:
        folder = self.url_of(path).rstrip("/")
        with self._reaching(folder):
            entries = self._fs.ls(folder, detail=True)
        return sorted((entry["name"].rstrip("/").rpartition("/")[2], entry["type"]) for entry in entries)

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

    def read_if_whole(self, path: str) -> dict[str, Any] | None:
        """Return the mapping in a JSON file, or None if there is no file or it is damaged, which the log tells."""
        try:
            return self.read_json(path)
        except DamageError as damage:
            _logger.warning("%s", damage)
            return None

    def write_json(self, path: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        self.write_bytes(path, json.dumps(content, indent=1).encode())

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        if self.exists(path):
            with self._reaching(self.url_of(path)), suppress(FileNotFoundError):
                self._fs.rm_file(self.url_of(path))

    def remove_temporary(self, path: str = "", age: float = 0.0) -> int:
        """Remove the files in a folder that a program was writing when it was killed, and return how many there were.

        Args:
            path: the folder.
            age: seconds that must have passed since the last change, so that what is being written is left alone.
        """
        left = [f"{path}/{name}".lstrip("/") for name in self.files(path) if name.endswith(TEMPORARY)]
        with self._reaching(self.url_of(path)):
            old = [file for file in left if not age or self._age(file) >= age]
        for file in old:
            self.remove(file)
        return len(old)

    def _age(self, path: str) -> float:
        try:
            changed = self._fs.modified(self.url_of(path))
        except FileNotFoundError:  # it was renamed meanwhile
            return 0.0
        return float((datetime.now(timezone.utc) - changed).total_seconds())

    def url_of(self, path: str) -> str:
        """Return where a file is, for messages.

        Raises:
            StoreError: it would be somewhere else; the names of networks and plans come from files.
        """
        if ".." in path.split("/") or path.startswith("/"):
            raise StoreError(f"{self.url}: expected a path inside, got {path!r}")
        return f"{self._root.rstrip('/')}/{path}"

    def read_bytes(self, path: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""
        with self._reaching(self.url_of(path)):
            try:
                return bytes(self._fs.cat_file(self.url_of(path)))
            except FileNotFoundError:
                return None

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a file under a temporary name, and rename it; what cannot be written leaves nothing behind."""
        target = self.url_of(path)
        with self._reaching(target):
            if self._fs.isdir(target):  # or the file would be moved into it
                raise IsADirectoryError("a directory")
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            try:
                self._write_and_rename(target, content)
            except FileNotFoundError:  # a trial of the same network has ended and removed what it took for left behind
                self._write_and_rename(target, content)

    def _write_and_rename(self, target: str, content: bytes) -> None:
        temporary = f"{target}.{uuid.uuid4().hex}{TEMPORARY}"
        try:
            self._fs.pipe_file(temporary, content)
            self._fs.mv(temporary, target)
        except BaseException:
            with suppress(Exception):  # it says less than the first one
                self._fs.rm_file(temporary)
            raise

    def decode(self, path: str, content: bytes, decoder: Callable[[bytes], Any]) -> Any:
        """Return what a decoder makes of the content of a file, or raise StoreError that names the file."""
        try:
            return decoder(content)
        except Exception as error:  # what PyTorch says is long, and advises to trust the file
            trouble = f"one that cannot be read ({type(error).__name__})"
            raise DamageError(f"{self.url_of(path)}: expected a file that this package wrote, got {trouble}") from error

    @staticmethod
    @contextmanager
    def _reaching(place: str) -> Iterator[None]:
        """Say in one line what any of fsspec's file systems says of a place that it cannot read or write."""
        try:
            yield
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise StoreError(f"{place}: expected a place to read and write, got {reason}") from error
