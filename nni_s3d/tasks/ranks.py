"""The processes of torchrun, called ranks. Without torchrun there is one, and nothing here has anything to do."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

from nni_s3d.errors import ConfigError

T = TypeVar("T")
_STEP = timedelta(hours=1)  # for what all ranks do at once, which some may begin later: a step of training, a product
_WORD = timedelta(days=30)  # for a word from the first rank, which chooses neurons meanwhile
_words: dist.ProcessGroup | None = None  # what `from_first` sends through


def rank() -> int:
    """Return the number of this process; 0 is the first."""
    return 0 if _words is None else dist.get_rank()


def world_size() -> int:
    """Return how many processes there are."""
    return 1 if _words is None else dist.get_world_size()


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other processes of torchrun, if there are any, each with a GPU of its own if it works on one.

    A process that waits for one that has died gets an error, at the latest after an hour of training.

    Raises:
        ConfigError: there are fewer GPUs than processes, or all are told to take the same.
    """
    global _words
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if device.type == "cuda":
        _take_gpu(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_STEP)
    try:
        _words = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_WORD))
        yield
    finally:
        _words = None
        dist.destroy_process_group()


def _take_gpu(device: torch.device) -> None:
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if str(device) != "cuda" or gpus < here:
        got = f"{gpus} of them" if gpus < here else device
        raise ConfigError(f"device: expected auto or cuda, and a GPU for each of {here} processes, got {got}")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def from_first(value: T) -> T:
    """Return what the first process gives here: numbers, texts, containers, and tensors, which arrive on the processor.

    Raises:
        RuntimeError: the first process has gone.
    """
    if _words is None:
        return value
    buffer = io.BytesIO()
    torch.save(value, buffer)
    box = [buffer.getvalue() if rank() == 0 else b""]
    dist.broadcast_object_list(box, src=0, group=_words)
    given: T = torch.load(io.BytesIO(box[0]), map_location="cpu", weights_only=True)
    return given


def next_word() -> dict[str, Any] | None:
    """Return what the first process gives next, in any other one; None if the first has gone, and has said why."""
    try:
        return from_first({})
    except RuntimeError:
        return None


def broadcast(tensor: Tensor) -> Tensor:
    """Return what the first process gives here, which takes the place of a tensor of the same shape."""
    if _words is not None:
        dist.broadcast(tensor, src=0)
    return tensor


def add_up(tensor: Tensor) -> Tensor:
    """Return, in the first process, the sum of what all processes give here."""
    if _words is not None:
        dist.reduce(tensor, dst=0)
    return tensor
