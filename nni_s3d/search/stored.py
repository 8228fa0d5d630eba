"""The finished networks of a store: what each one is, how good it is, and the network itself."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nni_s3d.config import build
from nni_s3d.errors import ConfigError, StoreError, first_line
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_tensors
from nni_s3d.tasks.task import Task

_KEY = re.compile("[0-9a-f]{16}")
_METRICS = ("default", "params", "macs")


@dataclass(frozen=True)
class StoredNetwork:
    """One finished trial, as its folder in a store tells."""

    store: Store
    key: str  # name of the folder
    parameters: dict[str, Any]  # of the trial, see `Spec`
    metrics: dict[str, float]

    @property
    def widths(self) -> dict[str, int]:
        """Of the layers that the search space names."""
        return widths_of(self.parameters)

    def load(self, task: Task, shape: torch.Size) -> nn.Module:
        """Return the trained network, in evaluation mode.

        Args:
            task: that of the store, see `stored_task`.
            shape: of an input, without the samples.

        Raises:
            StoreError: its weights are missing, or are those of another network.
        """
        path = f"{self.key}/weights.safetensors"
        weights = read_tensors(self.store, path)
        if weights is None:
            raise StoreError(f"{self.store.url_of(path)}: expected the weights of a finished trial, found none")
        model = task.build_model(self.widths, task.seed, shape)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            expected = f"expected the weights of a network with widths {self.widths}"
            raise StoreError(f"{self.store.url_of(path)}: {expected}, got: {first_line(error)}") from error
        return model.eval()


def stored_networks(store: Store) -> list[StoredNetwork]:
    """Return the finished networks of a store, in the order of their folders.

    Raises:
        StoreError: there is no such store, or a file in it is not what this package writes.
    """
    found = []
    for key in filter(_KEY.fullmatch, store.folders()):
        parameters = store.read_json(f"{key}/spec.json")
        metrics = store.read_json(f"{key}/metrics.json", *_METRICS)
        if parameters is not None and metrics is not None:
            found.append(StoredNetwork(store, key, parameters, metrics))
    return found


def stored_task(store: Store) -> Task:
    """Return the task that everything in a store belongs to, on the processor; nothing can be searched with it.

    Raises:
        StoreError: the store does not say, or an older version has written it.
    """
    content = store.read_json("task.json")
    if content is None:
        raise StoreError(f"{store.url_of('task.json')}: expected the task of a store, found none")
    try:
        task = build(Task, {**content, "search_space": ""}, store.url_of("task.json"))
    except ConfigError as error:
        raise StoreError(str(error)) from error
    return dataclasses.replace(task, device="cpu")
