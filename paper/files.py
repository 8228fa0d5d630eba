"""Files that a study leaves: their names, and rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nni_s3d.search.folder import Folder


def file_name(text: str) -> str:
    """Return letters and digits in lower case, with a dash for everything else."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def write(rows: Iterable[Mapping[str, Any]], path: Path, columns: Sequence[str]) -> None:
    """Write the rows as CSV, under a temporary name first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    Folder(str(path.parent)).write_bytes(path.name, text.getvalue().encode())
