"""A network of a store with its trained weights, and the task that it belongs to."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from nni_s3d.config import build
from nni_s3d.errors import ConfigError, StoreError, first_line
from nni_s3d.search.store import Store
from nni_s3d.search.stored import StoredNetwork
from nni_s3d.search.tensor_files import read_tensors
from nni_s3d.tasks.task import Task


def load_network(network: StoredNetwork, task: Task, shape: torch.Size) -> nn.Module:
    """Return a trained network, in evaluation mode.

    Args:
        network: what is known of it.
        task: that of its store, see `stored_task`.
        shape: of an input, without the samples.

    Raises:
        StoreError: its weights are missing, or are those of another network.
    """
    path = f"{network.key}/weights.safetensors"
    weights = read_tensors(network.store, path)
    if weights is None:
        raise StoreError(f"{network.store.url_of(path)}: expected the weights of a finished trial, found none")
    model = task.build_model(network.widths, task.seed, shape)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        expected = f"expected the weights of a network with widths {network.widths}"
        raise StoreError(f"{network.store.url_of(path)}: {expected}, got: {first_line(error)}") from error
    return model.eval()


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
