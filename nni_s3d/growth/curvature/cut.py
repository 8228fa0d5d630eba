"""Run a network, tell the input of every consumer apart, and cut the network there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from nni_s3d.errors import ModelError
from nni_s3d.growth.curvature.averages_over_channels import written_with_means
from nni_s3d.growth.curvature.computed_producer import ComputedProducer
from nni_s3d.growth.curvature.elementwise_nodes import Elementwise
from nni_s3d.growth.curvature.norm_over_channels import OverChannels, is_usual
from nni_s3d.growth.curvature.preconditions import check_deterministic
from nni_s3d.growth.curvature.producer import LinearCall, Producer
from nni_s3d.growth.curvature.products_over_channels import products, written_attention
from nni_s3d.growth.curvature.second_derivatives import twice_differentiable
from nni_s3d.growth.curvature.tape import Tape
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from nni_s3d.growth.graph.averages import ReadingCalls
from nni_s3d.growth.graph.channels import ChannelGraph, Layer
from nni_s3d.growth.graph.functions import KINDS, PRODUCTS, Kind, canonical_name
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.rewriting import as_linear
from nni_s3d.growth.graph.written_kinks import WrittenKinks


class Cut(TorchFunctionMode):
    """Cuts the network at its consumers, and records on a tape what lies between them and the producers.

    What depends on a producer's output reaches the loss through consumers alone, so the derivative of the loss with
    respect to it, which autograd's backward pass finds, is that of h.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, smoothing: float, zeros: ZeroBuffer) -> None:
        super().__init__()
        self._own = OwnTensors.of(model)
        self._consumers = {layer.weight for group in graph.splittable_groups for layer in group.consumers}
        self._weights = {layer.weight: layer for group in graph.splittable_groups for layer in group.producers}
        self._reading, self._kinks = ReadingCalls(graph.reading_calls), WrittenKinks()
        self.tape = Tape(smoothing, zeros)
        self.producers: list[tuple[Layer, Producer]] = []  # a layer once for each of its calls
        self._follows = True  # whether functions are recorded
        self._rewrites = False  # whether the calls are not the model's, but stand for one of them

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, canonical_name(func)
        if not self._follows:
            return func(*args, **kwargs)
        reads, func = not self._rewrites and self._reading.met(name), twice_differentiable(func, name)
        plainer = as_linear(name, args, kwargs, self._own) or self._kinks.as_ramp(func, name, args, kwargs)
        if plainer is not None:
            return self._rewritten(plainer)
        if reads and KINDS[name] in PRODUCTS:
            if KINDS[name] is not Kind.ATTENTION:
                return self._product(func, name, *args, **kwargs)
            return self._rewritten(
                lambda: written_attention(partial(self._product, products, "matmul"), *args, **kwargs)
            )
        if reads:
            if not is_usual(name, args, kwargs):
                return self._rewritten(lambda: written_with_means(name, self._mean, args, kwargs))
            _check_gradients(name)
            func = OverChannels(func)
        # What is kept for the backward pass is kept as it is: checkpoints would compute it again, outside of the cut.
        with saved_tensors_hooks(_itself, _itself):
            if KINDS.get(name) not in (Kind.LINEAR, Kind.EMBEDDING):
                check_deterministic(name, args, kwargs)
                out = self.tape.apply(func, name, args, kwargs)
                self._own.follow(func, args, kwargs, out)
                self._kinks.follow(name, args, kwargs, out)
                return out
            return self._linear(LinearCall(func, args, kwargs, self._own))

    def _rewritten(self, call: Callable[[], Any]) -> Any:
        """Make a call by other functions, and follow these."""
        before, self._rewrites = self._rewrites, True
        try:
            with self:
                return call()
        finally:
            self._rewrites = before

    def _product(self, func: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Tensor:
        """Cut behind a product of two tensors that sums over their channels, which reads them as a layer does."""
        _check_gradients(name)
        out: Tensor = self.tape.apply(func, name, args, kwargs)
        self.tape.mark_consumed(out)
        self._follows = False
        try:
            return out.view_as(out)
        finally:
            self._follows = True

    def _linear(self, linear: LinearCall) -> Tensor:
        """Cut where a consumer reads, and begin a value of the tape at a producer."""
        weight = linear.names[0]
        if weight in self._consumers:
            _check_gradients(str(weight))
            self.tape.mark_consumed(linear.input)
            linear.input = linear.input.view_as(linear.input)
        if weight is None or weight not in self._weights:
            out: Tensor = self.tape.apply(*linear.call)
            return out
        if linear.is_computed:
            producer: Producer = ComputedProducer(linear, self._own, self._weights[weight].parameters)
        else:
            producer = Producer(linear)
        self.producers.append((self._weights[weight], producer))
        out, producer.value = self.tape.leaf(producer, linear.input)
        return out

    def _mean(self, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
        """Cut at a mean over channels, which reads them as a layer does."""
        _check_gradients("mean")
        self.tape.mark_consumed(input)
        self._follows = False
        try:
            return torch.mean(input.view_as(input), dim, keepdim)
        finally:
            self._follows = True

    def linearize(self, loss: Tensor) -> None:
        """Find the derivatives that the products need."""
        self._reading.check()
        self.tape.prune()
        for _, producer in self.producers:
            reader = self.tape.sole_reader(producer.value)
            if isinstance(reader, Elementwise) and reader.scale is not None and producer.absorb_scale(reader.scale):
                reader.scale = None
        torch.autograd.grad(loss, self.tape.anchor, allow_unused=True)


def _check_gradients(name: str) -> None:
    if not torch.is_grad_enabled():
        raise ModelError(
            f"{name}: expected a layer with gradients, got one under no_grad or a reentrant checkpoint; "
            "call it outside of no_grad, or with use_reentrant=False"
        )


def _itself(x: Tensor) -> Tensor:
    return x
