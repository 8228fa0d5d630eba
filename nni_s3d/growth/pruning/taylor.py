"""How much the loss changes if a neuron is removed, to first order.

A consumer is linear in its columns, so the derivative by a factor on what it reads of a neuron is the sum of weight
times gradient over the columns of that neuron: one backward pass tells it for all neurons, whatever lies in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError
from nni_s3d.growth.curvature.batch import Batch, LossFn, samples_of, scalar_loss
from nni_s3d.growth.graph.channels import ChannelGraph, Layer
from nni_s3d.growth.graph.theta import as_columns, sums_of_slots
from nni_s3d.growth.modules import call, evaluation_mode, modules_restored


def first_order_changes(model: nn.Module, graph: ChannelGraph, batches: Iterable[Batch], loss_fn: LossFn) -> Tensor:
    """Return the mean over batches, weighted by their samples, of the size of the change; (channels,) float64.

    Args:
        model: the network, which is run in evaluation mode.
        graph: its channel graph.
        batches: pairs (inputs, targets).
        loss_fn: the mean loss of a batch.

    Raises:
        ConfigError: there are no batches.
        ModelError: the loss is no scalar.
    """
    changes, samples = torch.zeros(graph.num_channels, dtype=torch.float64), 0
    with evaluation_mode(model), modules_restored(model):
        for batch in batches:
            changes += samples_of(batch) * _derivatives(model, graph, batch, loss_fn).abs()
            samples += samples_of(batch)
    if not samples:
        raise ConfigError("batches: expected at least one for the importance 'taylor', got none")
    return changes / samples


def _derivatives(model: nn.Module, graph: ChannelGraph, batch: Batch, loss_fn: LossFn) -> Tensor:
    """Return the derivatives of the loss by factors on the outputs of all neurons, (channels,)."""
    found = torch.zeros(graph.num_channels + 1, dtype=torch.float64)  # the last is for slots of no channel
    read = [(layer, axis) for layer in graph.layers for axis in filter(None, map(as_columns, layer.axes))]
    if not read:
        return found[:-1]
    names = {axis.tensor for _, axis in read}
    names |= {layer.norm.length for layer, _ in read if layer.norm is not None}
    own = dict((*model.named_parameters(), *model.named_buffers()))
    values = {name: own[name] for name in sorted(names)}
    with torch.enable_grad(), _with_gradients(values.values()):
        loss = scalar_loss(loss_fn, call(model, batch[0]), batch[1])
        slopes = torch.autograd.grad(loss, list(values.values()), materialize_grads=True)
    gradients = dict(zip(values, slopes, strict=True))
    for layer, axis in read:
        places = axis.slots % len(found)
        found.index_add_(0, places, sums_of_slots(_by_factors(layer, axis.tensor, values, gradients), axis))
    return found[:-1]


@contextmanager
def _with_gradients(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Let tensors have gradients that are frozen, or buffers, for a while."""
    frozen = [tensor for tensor in tensors if not tensor.requires_grad]
    try:
        for tensor in frozen:
            tensor.requires_grad_()
        yield
    finally:
        for tensor in frozen:
            tensor.requires_grad_(False)


@torch.no_grad()
def _by_factors(layer: Layer, name: str, values: dict[str, Tensor], gradients: dict[str, Tensor]) -> Tensor:
    """Return weight times gradient for every element of a consumer's parameter."""
    value, norm = values[name].double(), layer.norm
    if norm is None:
        return value * gradients[name].double()
    # Where rows are divided by their size, which the columns of a neuron change, their lengths make up for it.
    rows, shape = norm.centre(value), (-1, *(1,) * (value.dim() - 1))
    by_length = (gradients[norm.length].double() * values[norm.length].double()).reshape(shape)
    entries = rows[0].numel() if norm.centred else 1
    return rows * gradients[name].double() + by_length * rows**2 / (entries * norm.size(rows).reshape(shape) ** 2)
