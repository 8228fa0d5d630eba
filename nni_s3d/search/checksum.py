"""A checksum inside a file, so that a damaged file is never taken for a whole one.

Wherever a format lets a writer leave a text of its own, a file has sha256:<64 hexadecimal digits>: JSON in a key,
safetensors in its metadata, a checkpoint of PyTorch in the comment of its zip archive. It is the hash of the file's
path in the store and of the whole file, with these digits set to 0. So a file that was copied from the place of another
one is found as well. File and checksum are written at once: nothing that ends a program comes between them.
"""

from __future__ import annotations

import hashlib
import re

KEY = "checksum"  # of JSON, and of the metadata of safetensors
UNKNOWN = f"sha256:{'0' * 64}"  # what a file has in the place of its checksum before it is written
_CHECKSUM = re.compile(rb"sha256:[0-9a-f]{64}")


def with_checksum(path: str, content: bytes) -> bytes:
    """Return the content of a file with its checksum in the place of `UNKNOWN`.

    Args:
        path: of the file in its store.
        content: has `UNKNOWN` in one place.

    Raises:
        ValueError: it has not.
    """
    before, place, after = content.partition(UNKNOWN.encode())
    if not place:
        raise ValueError(f"{path}: expected a place for a checksum")
    return b"".join((before, _checksum(path, content), after))


def trouble_with(path: str, content: bytes) -> str:
    """Say what a file is if it is not as it was written; an empty text if it is."""
    found = _CHECKSUM.search(content)
    if found is None:
        return "one without a checksum: damaged, or of another program or version"
    start, end = found.span()
    zeroed = b"".join((content[:start], UNKNOWN.encode(), content[end:]))
    return "" if _checksum(path, zeroed) == found[0] else "one that was changed, or written to another place"


def _checksum(path: str, content: bytes) -> bytes:
    digest = hashlib.sha256(path.encode() + b"\0")
    digest.update(content)
    return b"sha256:" + digest.hexdigest().encode()
