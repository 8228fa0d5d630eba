"""Products with the splitting matrices of all neurons on one batch, from one linearisation of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.curvature.batch import Batch, LossFn, dtype_of_products, loss_scale, samples_of, scalar_loss
from nni_s3d.growth.curvature.components import connected_components
from nni_s3d.growth.curvature.cut import Cut
from nni_s3d.growth.curvature.producer import Producer
from nni_s3d.growth.curvature.segment import Segment
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from nni_s3d.growth.eigen.operator import dense_by_products, shape_of
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup, Layer
from nni_s3d.growth.graph.theta import dimension, pack, scatter
from nni_s3d.growth.modules import call, check_device, untouched_state

Shapes = dict[str, tuple[int, int]]  # {group: (width, d)}


class BatchOperator:
    """v -> S v for every neuron of every splittable group, averaged over the samples of one batch.

    The batch is linearised once; a product then needs no further pass through the network. Arguments as for
    `SplittingOperator`; `zeros` is what the operators of several batches share.

    Attributes:
        shapes: {group: (width, d)}, the shapes of the vectors that the operator takes.
        samples: number of samples of the batch.
        passes: what has been computed so far, in passes of the batch through the network. Linearising costs two
            (forward, backward to the activations), and so does a product with every matrix (forward, weight gradient).

    Raises:
        ModelError: the batch is on another device, the loss is no scalar, or a consumer runs without gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        batch: Batch,
        loss_fn: LossFn,
        *,
        smoothing: float = 3.0,
        zeros: ZeroBuffer | None = None,
    ) -> None:
        inputs, targets = batch
        check_device(model, batch, "batch")
        self._graph = graph
        self.shapes, self.samples = shapes_of(graph), samples_of(batch)
        cut = Cut(model, graph, smoothing, zeros or ZeroBuffer())
        with untouched_state(model), torch.enable_grad():
            with cut:
                outputs = call(model, inputs)
            _, first = cut.producers[0]
            self._scale = loss_scale(first.dtype, self.samples)
            cut.linearize(scalar_loss(loss_fn, outputs, targets) * self._scale)
        self._producers = cut.producers
        self._clusters = clusters(graph.splittable_groups, cut.producers, cut.tape.segments())
        self.dtype, self.device = dtype_of_products(first.dtype), first.device
        self.passes = 2.0

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""
        check_vectors(vectors, self.shapes)
        self.passes += 2 * len(vectors) / len(self.shapes)
        products: dict[str, Tensor] = {}
        for cluster in self._clusters:  # one by one, so that the tangents of only one are there at a time
            groups = [group for group in cluster.groups if group.name in vectors]
            if groups:
                products |= self._products(groups, cluster.segments, vectors)
        return {name: products[name] for name in vectors}

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""
        shape = shape_of(self.shapes, name)
        return dense_by_products(self, name, torch.empty(shape, dtype=self.dtype, device=self.device))

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that the linearised batch keeps, without what autograd may keep of rare functions."""
        tensors = [producer.input for _, producer in self._producers]
        for cluster in self._clusters:
            tensors += [tensor for segment in cluster.segments for tensor in segment.tensors()]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
        return sum(storage.nbytes() for storage in storages.values())

    def _products(
        self, groups: Sequence[ChannelGroup], segments: Sequence[Segment], vectors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        filters: dict[str, Tensor] = {}
        for group in groups:
            scatter(group, vectors[group.name], filters, self._graph.shapes)
        for name in filters.keys() & self._graph.frozen:
            filters[name].zero_()
        rows: dict[str, Tensor] = {}
        calls = self._calls_by_value(groups)
        for segment in segments:
            moved = segment.inputs & calls.keys()
            tangents = {value: calls[value][1].times(filters, calls[value][0]) for value in moved}
            for value, cotangent in segment.hessian_times(tangents).items():
                if value in calls:
                    layer, producer = calls[value]
                    _add(rows, producer.transpose_times(cotangent, layer), producer.block, filters)
        for _, producer in calls.values():
            _add(rows, producer.second_order(filters), None, filters)
        for name in filters.keys() - (rows.keys() - self._graph.frozen):
            # Producers without curvature, or that do not run in evaluation mode, leave zeros.
            rows[name] = torch.zeros_like(filters[name])
        return {group.name: pack(group, rows).to(self.dtype).div_(self._scale) for group in groups}

    def _calls_by_value(self, groups: Sequence[ChannelGroup]) -> dict[int, tuple[Layer, Producer]]:
        """Return the calls of the producers of some groups, by the number of what they return on the tape."""
        weights = {layer.weight for group in groups for layer in group.producers}
        return {made.value: (layer, made) for layer, made in self._producers if layer.weight in weights}


def _add(rows: dict[str, Tensor], more: Mapping[str, Tensor], block: int | None, filters: Mapping[str, Tensor]) -> None:
    """Add what a call of a layer has brought, for a block of its parameters or for all, to what earlier ones have."""
    for name, row in more.items():
        if block is not None:
            rows.setdefault(name, torch.zeros_like(filters[name]))[block] += row
        else:
            rows[name] = rows[name] + row if name in rows else row


class RecomputedBatchOperator:
    """The operator of a batch that is linearised whenever it is asked, since there is no room to keep it."""

    def __init__(self, linearize: Callable[[], BatchOperator], samples: int) -> None:
        self._linearize, self.samples, self.passes = linearize, samples, 0.0

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""
        with self._linearized() as op:
            return op.matvec(vectors)

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""
        with self._linearized() as op:
            return op.dense(name)

    @contextmanager
    def _linearized(self) -> Iterator[BatchOperator]:
        op = self._linearize()
        yield op
        self.passes += op.passes


@dataclass(frozen=True)
class Cluster:
    """Groups whose producers meet in a segment of the tape, or are the same layer, with all these segments."""

    groups: list[ChannelGroup]
    segments: list[Segment]


def clusters(
    groups: Sequence[ChannelGroup], producers: Sequence[tuple[Layer, Producer]], segments: Sequence[Segment]
) -> list[Cluster]:
    """Gather groups and segments that have to do with each other: vertices joined by the weights of producers."""
    names = dict.fromkeys(layer.weight for group in groups for layer in group.producers)
    weights = {weight: n for n, weight in enumerate(names)}
    first_group, first_segment = len(weights), len(weights) + len(groups)
    by_value = {producer.value: weights[layer.weight] for layer, producer in producers}
    edges = [(first_group + n, weights[layer.weight]) for n, group in enumerate(groups) for layer in group.producers]
    for n, segment in enumerate(segments):
        edges += [(first_segment + n, by_value[value]) for value in segment.inputs & by_value.keys()]
    component = connected_components(first_segment + len(segments), edges)
    gathered: dict[int, Cluster] = {}
    for n, group in enumerate(groups):
        gathered.setdefault(component[first_group + n], Cluster([], [])).groups.append(group)
    for n, segment in enumerate(segments):
        gathered[component[first_segment + n]].segments.append(segment)
    return list(gathered.values())


def shapes_of(graph: ChannelGraph) -> Shapes:
    """Return {group: (width, d)} of all splittable groups."""
    return {group.name: (group.width, dimension(group, graph.shapes)) for group in graph.splittable_groups}


def check_vectors(vectors: Mapping[str, Tensor], shapes: Shapes) -> None:
    """Refuse vectors of other shapes than these.

    Raises:
        ModelError: a group is not there, or the shape of its vectors is another one.
    """
    for name, vector in vectors.items():
        if vector.shape != shape_of(shapes, name):
            raise ModelError(f"{name}: expected vectors of shape {shapes[name]}, got {tuple(vector.shape)}")
