"""Whether every file of a store is as it was written."""

from __future__ import annotations

from collections.abc import Iterator

from nni_s3d.errors import DamageError
from nni_s3d.search.folder import TEMPORARY
from nni_s3d.search.store import Store


def verify(store: Store) -> Iterator[tuple[str, str]]:
    """Read every file of a store, and yield its path with what is wrong with it, an empty text if nothing is.

    Raises:
        StoreError: there is no such store, or it cannot be reached.
    """
    for path in _paths(store):
        try:
            store.read_bytes(path)
        except DamageError as damage:
            yield path, str(damage)
        else:
            yield path, ""


def _paths(store: Store, folder: str = "") -> Iterator[str]:
    """Return the paths of all files, but for those that are being written or were when a program was killed."""
    yield from (f"{folder}{name}" for name in store.files(folder) if not name.endswith(TEMPORARY))
    for name in store.folders(folder):
        yield from _paths(store, f"{folder}{name}/")
