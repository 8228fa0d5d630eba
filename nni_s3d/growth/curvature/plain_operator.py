"""The splitting matrices by their definition, on `torch.func`: an oracle that needs none of the tape.

With z_c, the input of consumer c, and g_c, the derivative of the loss with respect to z_c as c reads it,

    h(theta) = sum_c <g_c, z_c(theta)>,    S v = (grad grad h) v,

where the network is cut at every consumer: the whole network, differentiated twice. The graph of grad h is kept, and a
product is one more backward pass through it (docs/speed.md says what the tape saves).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp
from torch.overrides import TorchFunctionMode

from nni_s3d.errors import ModelError
from nni_s3d.growth.curvature.averages_over_channels import written_with_means
from nni_s3d.growth.curvature.batch import Batch, LossFn, dtype_of_products, loss_scale, samples_of, scalar_loss
from nni_s3d.growth.curvature.batch_operator import check_vectors, shapes_of
from nni_s3d.growth.curvature.mean_operator import MeanOperator
from nni_s3d.growth.curvature.plain_kinks import PlainKinks
from nni_s3d.growth.curvature.preconditions import check_deterministic, check_model
from nni_s3d.growth.curvature.producer import LinearCall
from nni_s3d.growth.curvature.products_over_channels import products, written_attention
from nni_s3d.growth.curvature.second_derivatives import twice_differentiable
from nni_s3d.growth.curvature.smoothing import elementwise_name
from nni_s3d.growth.eigen.operator import dense_by_products, shape_of
from nni_s3d.growth.graph.averages import ReadingCalls
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.functions import KINDS, PRODUCTS, Kind, canonical_name
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.rewriting import as_linear
from nni_s3d.growth.graph.theta import pack, scatter
from nni_s3d.growth.graph.written_kinks import WrittenKinks
from nni_s3d.growth.modules import call, check_device, modules_restored, untouched_state


class PlainSplittingOperator(MeanOperator):
    """`SplittingOperator` without the tape: the same matrices and the same interface, in fewer lines and more time.

    Examples:
        >>> import torch
        >>> import nni_s3d as s3d
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
        >>> batch = torch.randn(32, 4).double(), torch.randint(3, (32,))
        >>> graph = s3d.trace(model, batch[0])
        >>> plain = s3d.PlainSplittingOperator(model, graph, [batch], torch.nn.functional.cross_entropy)
        >>> op = s3d.SplittingOperator(model, graph, [batch], torch.nn.functional.cross_entropy)
        >>> torch.allclose(plain.dense("0"), op.dense("0"))
        True

    Args, attributes and errors are those of `SplittingOperator`, but for `memory`: all graphs are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        batches: Iterable[Batch],
        loss_fn: LossFn,
        smoothing: float = 3.0,
    ) -> None:
        check_model(model, graph)
        parts = [PlainBatchOperator(model, graph, batch, loss_fn, smoothing) for batch in batches]
        if not parts:
            raise ModelError("batches: expected at least one batch, got none")
        super().__init__(parts, shapes_of(graph), parts[0].dtype, parts[0].device)


class PlainBatchOperator:
    """v -> S v averaged over the samples of one batch; `passes` counts four at first, and four for every product."""

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, batch: Batch, loss_fn: LossFn, smoothing: float = 3.0
    ) -> None:
        check_device(model, batch, "batch")
        self._model, self._graph, self._inputs, self._smoothing = model, graph, batch[0], smoothing
        self._parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._buffers = dict(model.named_buffers())
        producers = [layer for group in graph.splittable_groups for layer in group.producers]
        self._theta = {name: self._parameters[name] for layer in producers for name in layer.parameters}
        self._consumers = {layer.weight for group in graph.splittable_groups for layer in group.consumers}
        self.shapes, self.samples, self.passes = shapes_of(graph), samples_of(batch), 4.0
        producer = self._parameters[graph.splittable_groups[0].producers[0].weight]
        self.dtype, self.device = dtype_of_products(producer.dtype), producer.device
        self._scale = loss_scale(producer.dtype, self.samples)
        with untouched_state(model), torch.enable_grad():
            leaves = {name: parameter.clone().requires_grad_() for name, parameter in self._parameters.items()}
            read, outputs = self._run(leaves, cut=False)
            if not all(z.requires_grad for z in read):
                raise ModelError(
                    "model: expected every consumer with gradients, got one under no_grad; call it outside"
                )
            loss = scalar_loss(loss_fn, outputs, batch[1]) * self._scale
            self._cotangents = torch.autograd.grad(loss, read, allow_unused=True, materialize_grads=True)
            # The Hessian is symmetric, so that its products are those of its transpose.
            _, self._hessian_times, *_ = vjp(grad(self._h), self._theta)

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""
        check_vectors(vectors, self.shapes)
        self.passes += 4
        direction = {name: torch.zeros_like(parameter) for name, parameter in self._theta.items()}
        for name, vector in vectors.items():
            scatter(self._graph[name], vector, direction, self._graph.shapes)
        moving = {name: x.zero_() if name in self._graph.frozen else x for name, x in direction.items()}
        (rows,) = self._hessian_times(moving)
        rows = {name: torch.zeros_like(x) if name in self._graph.frozen else x for name, x in rows.items()}
        return {name: pack(self._graph[name], rows).to(self.dtype).div_(self._scale) for name in vectors}

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""
        shape = shape_of(self.shapes, name)
        return dense_by_products(self, name, torch.empty(shape, dtype=self.dtype, device=self.device))

    def _h(self, theta: dict[str, Tensor]) -> Tensor:
        read, _ = self._run(self._parameters | theta, cut=True)
        return _inner(self._cotangents, read)

    def _run(self, parameters: dict[str, Tensor], cut: bool) -> tuple[list[Tensor], Any]:
        """Return what consumers read, in the order of their calls, and the outputs of the network."""
        own, reading = OwnTensors(parameters | self._buffers), ReadingCalls(self._graph.reading_calls)
        with (
            modules_restored(self._model),
            _Consumers(self._consumers, own, reading, self._smoothing, cut) as consumers,
        ):
            outputs = call(lambda *a, **kw: functional_call(self._model, parameters, a, kw), self._inputs)
        reading.check()
        return consumers.read, outputs


def _inner(some: Iterable[Tensor], others: Iterable[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(some, others, strict=True)]).sum()


class _Consumers(TorchFunctionMode):
    """Keeps what layers with some weights read, and cuts the network there if it is told to; smooths activations."""

    def __init__(self, weights: set[str], own: OwnTensors, reading: ReadingCalls, smoothing: float, cut: bool) -> None:
        super().__init__()
        self._reading, self._kinks, self._written = reading, PlainKinks(smoothing), WrittenKinks()
        self._weights, self._own, self._cut = weights, own, cut
        self._follows = True  # whether functions are looked at
        self._rewrites = False  # whether the calls are not the model's, but stand for one of them
        self.read: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), canonical_name(func)
        if not self._follows:
            return func(*args, **kwargs)
        check_deterministic(name, args, kwargs)
        reads = not self._rewrites and self._reading.met(name)
        plainer = as_linear(name, args, kwargs, self._own) or self._written.as_ramp(func, name, args, kwargs)
        if plainer is not None:
            return self._rewritten(plainer)
        if reads and KINDS[name] is Kind.ATTENTION:
            return self._rewritten(
                lambda: written_attention(lambda q, k: self._at_reader(products(q, k)), *args, **kwargs)
            )
        if reads and KINDS[name] in PRODUCTS:
            return self._at_reader(func(*args, **kwargs))
        if reads:
            return self._rewritten(lambda: written_with_means(name, self._mean, args, kwargs))
        if KINDS.get(name) is Kind.EMBEDDING and kwargs.get("max_norm") is None:
            embedding = LinearCall(func, args, kwargs, self._own)
            return embedding.run(embedding.parameters)
        layer = LinearCall(func, args, kwargs, self._own) if KINDS.get(name) is Kind.LINEAR else None
        if layer is None or layer.names[0] not in self._weights:
            out = self._kinks.run(twice_differentiable(func, name), elementwise_name(name, args, kwargs), args, kwargs)
            self._own.follow(func, args, kwargs, out)
            self._written.follow(name, args, kwargs, out)
            return out
        layer.input = self._at_reader(layer.input)
        return layer.run(layer.parameters)

    def _rewritten(self, call: Callable[[], Any]) -> Any:
        """Make a call by other functions, and look at these."""
        before, self._rewrites = self._rewrites, True
        try:
            with self:
                return call()
        finally:
            self._rewrites = before

    def _at_reader(self, input: Tensor) -> Tensor:
        """Keep what is read, and return it as it is read."""
        self.read.append(input.clone())
        return self.read[-1].detach() if self._cut else self.read[-1]

    def _mean(self, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
        self._follows = False
        try:
            return torch.mean(self._at_reader(input), dim, keepdim)
        finally:
            self._follows = True
