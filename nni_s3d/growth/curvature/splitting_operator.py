"""Splitting matrices of every neuron at once, by cutting the network at its consumers.

Let z_c be the input of consumer c and g_c the derivative of the loss with respect to z_c as c reads it. With g held
fixed and the network cut at every consumer, S_i (eq. 2 of the paper) is the Hessian with respect to theta_i of
h = sum_c <g_c, z_c>, and no two neurons share a term of h. A producer is linear in its parameters, u = X theta, so

    S v = X' H (X v),    H = Hessian of h with respect to u,

which costs one convolution with v as the filters, a product with H through channel-wise functions, and one weight
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.curvature.cut import Cut, LossFn, Producer
from nni_s3d.growth.curvature.tape import Part
from nni_s3d.growth.curvature.zero_buffer import Zeros
from nni_s3d.growth.eigen.held_out import FOLDS
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.theta import dimension, pack, scatter
from nni_s3d.growth.graph.union_find import UnionFind
from nni_s3d.growth.modules import call, check_device, tensors, untouched_state

Batch = tuple[Any, Any]


class BatchOperator:
    """v -> S v for every neuron of every splittable group, averaged over the samples of one batch.

    The batch is linearised once; a product then needs no further pass through the network.

    Attributes:
        passes: what has been computed so far, in passes of the batch through the network. Linearising costs two
            (forward, backward to the activations), and so does a product with every matrix (forward, weight gradient).
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        batch: Batch,
        loss_fn: LossFn,
        smoothing: float = 3.0,
        zeros: Zeros | None = None,
    ) -> None:
        inputs, targets = batch
        check_device(model, batch, "batch")
        self._graph = graph
        self.shapes = {group.name: (group.width, dimension(group, graph.shapes)) for group in graph.splittable_groups}
        self.samples = samples_of(batch)
        cut = Cut(model, graph, smoothing, zeros or Zeros())
        with untouched_state(model), torch.enable_grad():
            with cut:
                outputs = call(model, inputs)
            loss = loss_fn(outputs, targets)
            if loss.dim():
                raise ModelError(f"loss_fn: expected a scalar, the mean over the batch, got shape {tuple(loss.shape)}")
            cut.linearise(loss)
        self._producers = cut.producers
        self._clusters = _clusters(graph.splittable_groups, cut.producers, cut.tape.parts())
        first = next(iter(self._producers.values()))
        self.dtype, self.device = first.dtype, first.device
        self.passes = 2.0

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""
        for name, vector in vectors.items():
            if vector.shape != self.shapes[_known(name, self.shapes)]:
                raise ModelError(f"{name}: expected vectors of shape {self.shapes[name]}, got {tuple(vector.shape)}")
        self.passes += 2 * len(vectors) / len(self.shapes)
        found: dict[str, Tensor] = {}
        for groups, parts in self._clusters:  # one after another, so that the tangents of only one are there at a time
            asked = [group for group in groups if group.name in vectors]
            if asked:
                found |= self._products(asked, parts, vectors)
        return {name: found[name] for name in vectors}

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""
        width, d = self.shapes[_known(name, self.shapes)]
        unit = torch.eye(d, dtype=self.dtype, device=self.device)
        return torch.stack([self.matvec({name: unit[j].expand(width, d)})[name] for j in range(d)], dim=-1)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that the linearised batch keeps, without what autograd may keep of rare functions."""
        found = [producer.input for producer in self._producers.values()]
        for _, parts in self._clusters:
            found += [tensor for part in parts for tensor in part.tensors()]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in found}
        return sum(storage.nbytes() for storage in storages.values())

    def _products(
        self, groups: list[ChannelGroup], parts: list[Part], vectors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        filters: dict[str, Tensor] = {}
        for group in groups:
            scatter(group, vectors[group.name], filters, self._graph.shapes)
        every = {layer.weight: layer for group in groups for layer in group.producers}
        layers = {self._producers[w].value: layer for w, layer in every.items() if w in self._producers}
        tangents = {v: self._producers[layer.weight].times(filters, layer) for v, layer in layers.items()}
        # Producers without curvature, or that do not run in evaluation mode, leave zeros.
        rows = {name: torch.zeros_like(tensor) for name, tensor in filters.items()}
        for part in parts:
            pushed = {v: tangents.pop(v) for v in part.values & tangents.keys()}
            for value, cotangent in part.hessian_times(pushed).items():
                if value in layers:
                    layer = layers[value]
                    rows |= self._producers[layer.weight].transpose_times(cotangent, layer)
        return {group.name: pack(group, rows) for group in groups}


class RecomputedBatchOperator:
    """The operator of a batch that is linearised whenever it is asked, since there is no room to keep it."""

    def __init__(self, linearise: Callable[[], BatchOperator], samples: int) -> None:
        self._linearise, self.samples, self.passes = linearise, samples, 0.0

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""
        with self._linearised() as op:
            return op.matvec(vectors)

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""
        with self._linearised() as op:
            return op.dense(name)

    @contextmanager
    def _linearised(self) -> Iterator[BatchOperator]:
        op = self._linearise()
        yield op
        self.passes += op.passes


class MeanOperator:
    """v -> S v averaged over the samples of several batches."""

    def __init__(
        self, parts: Sequence[BatchOperator | RecomputedBatchOperator], shapes: dict[str, tuple[int, int]]
    ) -> None:
        self.parts, self.shapes = parts, shapes
        self.samples = sum(part.samples for part in parts)

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""
        total = {name: torch.zeros_like(vector) for name, vector in vectors.items()}
        for part in self.parts:
            for name, product in part.matvec(vectors).items():
                total[name].add_(product, alpha=part.samples / self.samples)
        return total

    @property
    def passes(self) -> float:
        """What has been computed so far, in passes of all samples through the network."""
        return sum(part.passes * part.samples for part in self.parts) / self.samples

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""
        _known(name, self.shapes)
        first, *others = self.parts
        total = first.dense(name).mul_(first.samples / self.samples)
        for part in others:
            total.add_(part.dense(name), alpha=part.samples / self.samples)
        return total


class SplittingOperator(MeanOperator):
    """v -> S v for every neuron of every splittable group, averaged over all samples of some batches.

    Args:
        model: the network, in evaluation mode; it must stay as it is as long as the operator is in use.
        graph: its channel graph, from `trace`.
        batches: pairs (inputs, targets); the first dimension of the first input counts the samples. Samples in random
            order: `folds`, which are held out one after another, are batches that follow each other.
        loss_fn: loss_fn(model(inputs), targets) -> scalar, the mean loss over the batch.
        smoothing: sharpness beta of the softplus whose second derivative stands in for that of piecewise-linear
            activations. Smooth activations stay exact.
        memory: bytes that batches may take up that have been linearised, about; those beyond are linearised anew for
            every product, with the same result. None keeps all of them.

    Attributes:
        parts: one operator per batch; this operator is their mean, weighted by their samples.
        folds: at most `crossfit.FOLDS` operators over disjoint samples, of which it is the mean too.
        samples: number of samples of all batches together.
        shapes: {group: (width, d)}, the shapes of the vectors that the operator takes.

    Raises:
        ModelError: the model is not the one that was traced, a layer of it is in training mode (batch norm, dropout), a
            batch is on another device, nothing can be split, or there is no batch.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        batches: Iterable[Batch],
        loss_fn: LossFn,
        smoothing: float = 3.0,
        memory: float | None = None,
    ) -> None:
        _check_evaluation(model)
        graph.check(model)
        if not graph.splittable_groups:
            raise ModelError("graph: expected at least one splittable group, got none; print(graph) gives the reasons")
        parts: list[BatchOperator | RecomputedBatchOperator] = []
        room, zeros = float("inf") if memory is None else memory, Zeros()
        for batch in batches:
            linearise = partial(BatchOperator, model, graph, batch, loss_fn, smoothing, zeros)
            if not parts or room > 0:
                part = linearise()
                room -= part.nbytes
                if not parts:
                    self.dtype, self.device = part.dtype, part.device
            parts.append(part if room > 0 else RecomputedBatchOperator(linearise, samples_of(batch)))
        if not parts:
            raise ModelError("batches: expected at least one batch, got none")
        shapes = {group.name: (group.width, dimension(group, graph.shapes)) for group in graph.splittable_groups}
        super().__init__(parts, shapes)
        folds = min(FOLDS, len(parts))
        ends = [fold * len(parts) // folds for fold in range(folds + 1)]
        self.folds = [MeanOperator(parts[a:b], shapes) for a, b in pairwise(ends)]


def _clusters(
    groups: tuple[ChannelGroup, ...], producers: Mapping[str, Producer], parts: list[Part]
) -> list[tuple[list[ChannelGroup], list[Part]]]:
    """Gather the groups whose producers meet in a part of the tape, or are the same layer."""
    weights = {layer.weight: n for n, layer in enumerate(p for group in groups for p in group.producers)}
    by_value = {producer.value: weights[weight] for weight, producer in producers.items()}
    same = UnionFind()
    same.fresh(sum(len(group.producers) for group in groups))
    members = [[weights[layer.weight] for layer in group.producers] for group in groups]
    inside = [[by_value[value] for value in part.values if value in by_value] for part in parts]
    for connected in (*members, *inside):
        for other in connected[1:]:
            same.union(connected[0], other)
    found: dict[int, tuple[list[ChannelGroup], list[Part]]] = {}
    for group, numbers in zip(groups, members, strict=True):
        found.setdefault(same.find(numbers[0]), ([], []))[0].append(group)
    for part, numbers in zip(parts, inside, strict=True):
        found[same.find(numbers[0])][1].append(part)
    return list(found.values())


def samples_of(batch: Batch) -> int:
    """Count the samples of a batch."""
    return tensors(batch[0])[0].shape[0]


def _known(name: str, shapes: Mapping[str, object]) -> str:
    if name not in shapes:
        raise ModelError(f"{name}: expected a splittable group, one of {', '.join(shapes)}")
    return name


def _check_evaluation(model: nn.Module) -> None:
    """Refuse layers whose training mode would make S that of another, random function."""
    for name, module in model.named_modules():
        draws = isinstance(module, nn.RReLU) or (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
        if module.training and (draws or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            kind = type(module).__name__
            raise ModelError(f"{name}: expected evaluation mode, got a {kind} in training mode; call model.eval()")
