"""A block that is left when its time is over, or at Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _TimeIsOver(BaseException):
    """Not an error of a job, which would be reported."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Leave the block when the time is over, or at Ctrl-C, wherever it is: a file is written whole or not at all."""

    def stop(*_: object) -> None:
        raise _TimeIsOver

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except (_TimeIsOver, KeyboardInterrupt):
        print("not all is done; the same command goes on", file=sys.stderr)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
