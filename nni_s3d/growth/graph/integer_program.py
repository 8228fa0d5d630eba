"""`scipy.optimize.milp`, without the line that its solver prints by mistake.

HiGHS 1.12 (scipy 1.17) has a forgotten `printf`, whatever `disp` says (ERGO-Code/HiGHS, issue 2783; HiGHS.jl, issue
312). It comes when a solution is repaired, in 12% of 2,328 knapsacks, and no option of `milp` prevents that: neither
scaled rows nor tolerances, and without presolve or without the heuristics of HiGHS some lines were left.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def milp(*arguments: Any, **settings: Any) -> Any:
    """Return what `scipy.optimize.milp` returns; standard output stays clean if this is the only thread."""
    from scipy import optimize  # takes longer than most of what happens before an integer program is needed

    with _nothing_printed():
        return optimize.milp(*arguments, **settings)


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Turn file descriptor 1 away, which the whole process shares, so only while no other thread may print."""
    if _others_may_print():
        yield
        return
    try:
        standard_output = os.dup(1)
    except OSError:  # there is none
        yield
        return
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(standard_output, 1)
        os.close(standard_output)


def _others_may_print() -> bool:
    """Whether there are other threads; that of tqdm, which every progress bar starts, does not count."""
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    return any(type(thread).__name__ != "TMonitor" for thread in others)
