"""The first process of torchrun runs a program; the others help it to train and to multiply with splitting matrices.

All else, the evaluation of networks among it, is the first one's alone, with the workers that read its images: it takes
a small part of the time, and only one process speaks to NNI and the store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.tasks import ranks
from nni_s3d.tasks.data import DataSet
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.shared_products import multiply
from nni_s3d.tasks.task import Task
from nni_s3d.tasks.training import train

T = TypeVar("T")


def together(task: Task, program: Callable[[], T]) -> T | None:
    """Run a program in the first process and return its result; the others help, and return None in the end.

    A process that fails ends, and torchrun ends the others.

    Raises:
        ConfigError: the processes cannot share a batch of the task, or the GPUs.
    """
    with ranks.joined(task.torch_device):
        if ranks.rank():
            _help(task)
            return None
        if task.training.batch_size % (size := ranks.world_size()):
            expected = f"a multiple of {size}, the number of processes"
            raise ConfigError(f"training.batch_size: expected {expected}, got {task.training.batch_size}")
        result = program()
        ranks.from_first(None)
        return result


def call_helpers(widths: Mapping[str, int], recipe: Recipe, seed: int, order: int, data: DataSet) -> None:
    """Let the other processes train a network with this one, which goes on with `train`.

    Args:
        widths: of the network; its weights are those of this process.
        recipe: how to train.
        seed: of `train`.
        order: seed of the batches.
        data: that all of them read.

    Raises:
        ConfigError: the last batch of an epoch has fewer samples than there are processes.
    """
    size, rest = ranks.world_size(), len(data.train) % recipe.batch_size
    if 0 < rest < size:
        expected = f"a last batch of at least {size} samples, one for each process"
        raise ConfigError(f"training.batch_size: expected {expected}, got {rest} of {len(data.train)}")
    job = {"widths": dict(widths), "recipe": dataclasses.asdict(recipe), "seed": seed, "order": order}
    ranks.from_first({"train": job})


def _help(task: Task) -> None:
    """Take part in whatever the first process does, until it has no more work."""
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    data = None
    while (job := ranks.next_word()) is not None:
        data = data or task.load_data()
        if "multiply" in job:
            multiply(task, data, job["multiply"])
        else:
            _train(task, data, **job["train"])


def _train(task: Task, data: DataSet, widths: dict[str, int], recipe: dict[str, Any], seed: int, order: int) -> None:
    model = task.build_model(widths, seed, data.shape)
    train(model, task.training_loader(data, order), build(Recipe, recipe, "recipe"), seed)
