"""The gradient of every neuron, told apart by the weights through which it reaches the loss.

With the network cut at its consumers as for the splitting matrices (`curvature`), let g be the derivative of the loss
with respect to what a consumer makes of its input z. The neurons before it have the gradient of <g, W z> with respect
to theta, a sum over the elements k of W: their parts are G_k. For all neurons at once, sum_k s_k G_k is one pass back
from the consumers with the weights s_k W_k, and <G_k, u> is one pass of the tangents u forward to the consumers, and a
weight gradient there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.channels import Axis, ChannelGraph, Role
from nni_s3d.growth.curvature import Batch, Linearised, check_measurable, samples_of
from nni_s3d.growth.cut import LossFn

Tensors = dict[str, Tensor]


class BatchGradients(Linearised):
    """The parts of the gradients, averaged over the samples of one batch.

    A product costs three passes, since a consumer runs forward before it is differentiated.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, batch: Batch, loss_fn: LossFn) -> None:
        super().__init__(model, graph, batch, loss_fn, watch=True)
        self._consumers = [c for c in self._consumers if c.value is not None and c.cotangent is not None]

    def combined(self, factors: Mapping[str, Tensor]) -> Tensors:
        """Return sum_k s_k G_k, {group: (width, d)}, for s {consumer's weight: a factor for each element}."""
        self.passes += 3
        read: dict[int, Tensor] = {}
        for consumer in self._consumers:
            assert consumer.value is not None
            back = consumer.backward(factors[consumer.weight])
            read[consumer.value] = read[consumer.value] + back if consumer.value in read else back
        inside = {number for part in self._parts for number in part.outputs}
        found = {number: back for number, back in read.items() if number not in inside}  # producers that are read as is
        for part in self._parts:
            for number, back in part.backward({n: read[n] for n in part.outputs & read.keys()}).items():
                found[number] = found[number] + back if number in found else back
        return self._packed(self._graph.splittable, found.items())

    def along(self, directions: Mapping[str, Tensor]) -> Tensors:
        """Return <G_k, u>, {consumer's weight: for each element}, for u {group: (width, d)}."""
        self.passes += 3
        tangents = self._tangents(self._graph.splittable, directions)
        wanted = {consumer.value for consumer in self._consumers if consumer.value is not None}
        read = {number: tangent for number, tangent in tangents.items() if number in wanted}
        for part in self._parts:
            read |= part.forward({n: tangents.pop(n) for n in part.values & tangents.keys()}, wanted)
        found: Tensors = {}
        for consumer in self._consumers:
            if consumer.value in read:
                product = consumer.by_weight(read[consumer.value])
                found[consumer.weight] = found[consumer.weight] + product if consumer.weight in found else product
        return found


class MeanGradients:
    """The parts of the gradients, averaged over the samples of several batches.

    Args:
        linearise: what linearises a batch, and how many samples that has, for all of them.
        graph: the channel graph.
        room: bytes that linearised batches may take up, about; those beyond are linearised anew for every product.
    """

    def __init__(
        self, linearise: Sequence[tuple[Callable[[], BatchGradients], int]], graph: ChannelGraph, room: float
    ) -> None:
        self._linearise, self._graph = linearise, graph
        self.samples = sum(samples for _, samples in linearise)
        self._kept: list[BatchGradients] = []
        for make, _ in linearise:
            if self._kept and room <= 0:
                break
            self._kept.append(make())
            room -= self._kept[-1].nbytes
        self._spent = 0.0
        first = self._kept[0]
        self.shapes, self.dtype, self.device = first.shapes, first.dtype, first.device
        columns = _columns(graph)
        self.readers = {name: shape for name, shape in graph.shapes.items() if name in columns}
        self._columns = columns

    @property
    def passes(self) -> float:
        """What has been computed so far, in passes of all samples through the network."""
        pairs = zip(self._kept, self._linearise, strict=False)
        return (self._spent + sum(kept.passes * samples for kept, (_, samples) in pairs)) / self.samples

    def combined(self, factors: Mapping[str, Tensor]) -> Tensors:
        """Return sum_k s_k G_k, {group: (width, d)}, for s {consumer's weight: a factor for each element}."""
        shapes = {name: torch.Size(shape) for name, shape in self.shapes.items()}
        return self._mean(lambda op: op.combined(factors), shapes)

    def along(self, directions: Mapping[str, Tensor]) -> Tensors:
        """Return <G_k, u>, {consumer's weight: for each element}, for u {group: (width, d)}."""
        return self._mean(lambda op: op.along(directions), self.readers)

    def by_neuron(self, values: Mapping[str, Tensor]) -> Tensors:
        """Return sums over the weights that read a neuron, {group: (width,)}."""
        total = torch.zeros(self._graph.channels + 1, dtype=self.dtype, device=self.device)  # the last for no channel
        for name, axis in self._columns.items():
            tensor = values[name].unflatten(0, (axis.blocks, -1))
            others = [dim for dim in range(tensor.dim()) if dim not in (0, axis.dim + 1)]
            sums = tensor.sum(others) if others else tensor
            total.index_add_(0, axis.slots.to(self.device) % len(total), sums.flatten())
        return {group.name: total[group.channels] for group in self._graph.splittable}

    def held_out(self) -> Iterator[tuple[float, MeanGradients]]:
        """There are no other samples."""
        return iter(())

    def _mean(self, product: Callable[[BatchGradients], Tensors], shapes: Mapping[str, torch.Size]) -> Tensors:
        total = {name: torch.zeros(shape, dtype=self.dtype, device=self.device) for name, shape in shapes.items()}
        for number, (make, samples) in enumerate(self._linearise):
            op = self._kept[number] if number < len(self._kept) else make()
            for name, found in product(op).items():
                total[name].add_(found, alpha=samples / self.samples)
            if number >= len(self._kept):
                self._spent += op.passes * samples
        return total


class ReaderGradients(MeanGradients):
    """The parts of every neuron's gradient, on one half of the batches; the others are held out.

    Args:
        model: the network, in evaluation mode; it must stay as it is as long as this is in use.
        graph: its channel graph, from `trace`.
        batches: pairs (inputs, targets), in random order; the first half of them, rounded up, counts.
        loss_fn: loss_fn(model(inputs), targets) -> scalar, the mean loss over the batch.
        memory: bytes that linearised batches may take up, about; None for any number.

    Attributes:
        shapes: {group: (width, d)} of every splittable group.
        readers: {consumer's weight: its shape}.

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
        memory: float | None = None,
    ) -> None:
        check_measurable(model, graph)
        made = [(partial(BatchGradients, model, graph, batch, loss_fn), samples_of(batch)) for batch in batches]
        if not made:
            raise ModelError("batches: expected at least one batch, got none")
        half = (len(made) + 1) // 2
        self._others, self._spent_on_others = made[half:], 0.0
        super().__init__(made[:half], graph, float("inf") if memory is None else memory)

    def held_out(self) -> Iterator[tuple[float, MeanGradients]]:
        """Iterate over the other batches, with the shares that they have of their samples."""
        samples = sum(samples for _, samples in self._others)
        for one in self._others:
            part = MeanGradients([one], self._graph, 0)
            yield part.samples / samples, part
            self._spent_on_others += part.passes * part.samples

    @property
    def passes(self) -> float:
        """What has been computed so far, in passes of all samples through the network."""
        everything = self.samples + sum(samples for _, samples in self._others)
        return (super().passes * self.samples + self._spent_on_others) / everything


def _columns(graph: ChannelGraph) -> dict[str, Axis]:
    """Return the columns of every consumer of a splittable group, by the name of its weight."""
    weights = {layer.weight for group in graph.splittable for layer in group.consumers}
    axes = (axis for layer in graph.layers if layer.weight in weights for axis in layer.axes)
    return {axis.tensor: axis for axis in axes if axis.role is Role.COLUMN and axis.tensor in weights}
