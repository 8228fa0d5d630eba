"""What a process, and a store, take."""

import os
from pathlib import Path


def resident(process: int) -> float:
    """Return the memory of a process that is in use, in MiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def handles(process: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{process}/fd"))


def tensors(store: Path) -> int:
    """Return the bytes of all tensors in a store."""
    return sum(path.stat().st_size for path in store.rglob("*") if path.suffix in (".safetensors", ".pt"))
