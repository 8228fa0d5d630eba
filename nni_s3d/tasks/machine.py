"""How fast the machine is: shared processors may take ten times as long for the same work."""

from __future__ import annotations

import time

import torch

USUAL = 30.0  # GFLOP/s of matrix products that one core of a current processor reaches with ease
SLOW = 5.0
_SIZE, _PRODUCTS = 256, 20


def gflops() -> float:
    """Return the speed of matrix products on the processor at this moment, in 10^9 operations per second.

    It takes about 10 ms on an idle core.
    """
    matrix = torch.ones(_SIZE, _SIZE)
    matrix @ matrix  # the first one starts the threads
    start = time.perf_counter()
    for _ in range(_PRODUCTS):
        matrix @ matrix
    return 2 * _SIZE**3 * _PRODUCTS / (time.perf_counter() - start) / 1e9


def warning(speed: float) -> str:
    """Return what to say of a speed in GFLOP/s, nothing of one that is usual."""
    if speed >= SLOW:
        return ""
    times = f"about {USUAL / speed:.0f} times as long" if speed > 0 else "very long"
    return (
        f"the machine is slow at present: {speed:.1f} GFLOP/s, where one current core reaches {USUAL:.0f}; "
        f"expect trials to take {times} (do other programs use the processor?)"
    )
