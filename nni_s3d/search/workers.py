"""Carry out independent jobs, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import TypeVar

import torch

T = TypeVar("T")
_POLL = 1.0  # seconds between two calls of `meanwhile`


def in_processes(
    jobs: Sequence[T], workers: int, work: Callable[[T], None], meanwhile: Callable[[], None] = lambda: None
) -> Iterator[tuple[T, BaseException | None]]:
    """Carry out jobs; yield each when it has ended, with what went wrong, if anything did.

    Args:
        jobs: what there is to do.
        workers: processes; 1 stands for this one. Each of several has one thread.
        work: carries out a job; with several processes, something that pickle knows by its name.
        meanwhile: called once a second while several processes are at work.
    """
    if workers == 1:
        for job in jobs:
            try:
                work(job)
            except Exception as error:
                yield job, error
            else:
                yield job, None
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        jobs_of = {pool.submit(work, job): job for job in jobs}
        waiting = set(jobs_of)
        try:
            while waiting:
                ended, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
                for future in ended:
                    yield jobs_of[future], future.exception()
                meanwhile()
        except BaseException:  # the time is over, or Ctrl-C: what is done is kept
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
                process.join()
            raise
