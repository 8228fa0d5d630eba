"""Several processes that meet as those of torchrun do, forked from that of the tests: much faster than a start."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from nni_s3d.tasks import ranks


def side_by_side(function: Callable[[], Any], number: int = 2, join: bool = True, seconds: float = 60) -> list[Any]:
    """Return what a function, which joins the processes unless that is done here, returns or raises in each of them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(number)]
    processes = [
        context.Process(target=_run, args=(function, environment(rank, number, port), join, sender))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        assert all(receiver.poll(seconds) for receiver, _ in pipes), "a process hangs"
        return [receiver.recv() for receiver, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def environment(rank: int, number: int, port: int) -> dict[str, str]:
    """Return what torchrun tells a process."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_PORT": port}
    return {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost"} | {k: str(v) for k, v in names.items()}


def _run(function: Callable[[], Any], told: dict[str, str], join: bool, sender: Any) -> None:
    os.environ |= told
    try:
        with ranks.joined(torch.device("cpu")) if join else nullcontext():
            result = function()
    except Exception as error:
        result = error
    sender.send(result)
