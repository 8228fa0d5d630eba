"""Run a network so that every consumer's input can be told apart, and so that it is cut there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from nni_s3d.errors import ModelError
from nni_s3d.growth.curvature.elementwise_nodes import Elementwise
from nni_s3d.growth.curvature.tape import Tape
from nni_s3d.growth.curvature.vjp import Pullback
from nni_s3d.growth.curvature.zero_buffer import Zeros
from nni_s3d.growth.graph.channels import ChannelGraph, Layer
from nni_s3d.growth.graph.functions import DROPOUTS, KINDS, Kind, canonical_name, filters_come_first

LossFn = Callable[[Any, Any], Tensor]


class LinearCall:
    """One call of linear or conv*, whose arguments all begin with (input, weight, bias)."""

    def __init__(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        self.input: Tensor = named.pop("input")
        self.parameters: list[Tensor] = [p for p in (named.pop("weight"), named.pop("bias", None)) if p is not None]
        self._func, self._rest, self._settings = func, args[3:], named

    @property
    def transposed(self) -> bool:
        """Whether the filters are not along the first dimension of the weight."""
        return not filters_come_first(self._func)

    @property
    def call(self) -> tuple[Callable[..., Tensor], str, tuple[Any, ...], dict[str, Any]]:
        """Function, name, arguments and keywords."""
        weight, bias = (*self.parameters, None)[:2]
        return self._func, canonical_name(self._func), (self.input, weight, bias, *self._rest), self._settings

    def run(self, parameters: list[Tensor]) -> Tensor:
        """RecordedCall the function with these parameters, in the order of `parameters`."""
        weight, bias = (*parameters, None)[:2]
        return self._func(self.input, weight, bias, *self._rest, **self._settings)


class Producer:
    """A producer applied to its input X: u = X theta, and products with X and its transpose."""

    value: int  # the number of u on the tape, or of u times a scale that the producer takes over

    def __init__(self, linear: LinearCall) -> None:
        self._linear, self._continues = linear, linear.input.requires_grad
        self._parameters = [p.detach().requires_grad_() for p in linear.parameters]
        self._scale: Tensor | None = None  # (filters,) or (1,)

    def run(self, *tensors: Tensor) -> Tensor:
        """Return u. The graph of this one application is kept: running it backwards is the product with X'."""
        self._linear.input = tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            applied = self._linear.run(self._parameters)
        self._pullback = Pullback([applied])
        self.dtype, self.device = applied.dtype, applied.device
        return applied.detach()

    def fix(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """Return the derivatives with respect to the input."""
        if not self._continues:
            return [None]
        return self._pullback(cotangents, [self._linear.input])

    def takes_over(self, scale: Tensor) -> bool:
        """Make the value scale * u, if the scale is one number per filter: filters are smaller than activations."""
        weight, shape = self._parameters[0], list(scale.shape)
        per_filter = [len(weight)] + [1] * (weight.dim() - 2)
        while len(shape) > len(per_filter) and shape[0] == 1:
            shape.pop(0)
        fits = not self._linear.transposed and (scale.numel() == 1 or shape == per_filter)
        if fits:
            self._scale = scale.flatten()
        return fits

    @property
    def input(self) -> Tensor:
        """X, as the layer takes it."""
        return self._linear.input

    @torch.no_grad()
    def times(self, filters: Mapping[str, Tensor], layer: Layer) -> Tensor:
        """Return X v for filters v that are shaped like the parameters."""
        # Laid out like the parameters, since tangents would else be laid out unlike what they are multiplied by.
        laid = [torch.empty_like(p) for p in self._parameters]
        return self._linear.run(
            [q.copy_(self._scaled(filters[n])) for q, n in zip(laid, layer.parameters, strict=True)]
        )

    def transpose_times(self, cotangent: Tensor, layer: Layer) -> dict[str, Tensor]:
        """Return X' u by parameter."""
        found = self._pullback([cotangent], self._parameters)
        return dict(zip(layer.parameters, map(self._scaled, found), strict=True))

    def _scaled(self, filters: Tensor) -> Tensor:
        return filters if self._scale is None else filters * self._scale.reshape(-1, *[1] * (filters.dim() - 1))


class Cut(TorchFunctionMode):
    """Cuts the network at its consumers, and records on a tape what lies between them and the producers.

    What depends on a producer's output reaches the loss through consumers alone, so the derivative of the loss with
    respect to it, which autograd's backward pass finds, is that of h.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, smoothing: float, zeros: Zeros) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._consumers = {layer.weight for group in graph.splittable_groups for layer in group.consumers}
        self._weights = {layer.weight for group in graph.splittable_groups for layer in group.producers}
        self.tape = Tape(smoothing, zeros)
        self.producers: dict[str, Producer] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, canonical_name(func)
        # What is kept for the backward pass is kept as it is: checkpoints would compute it again, outside of the cut.
        with saved_tensors_hooks(_itself, _itself):
            if KINDS.get(name) is not Kind.LINEAR:
                _check_deterministic(name, args, kwargs)
                return self.tape.apply(func, name, args, kwargs)
            return self._linear(LinearCall(func, args, kwargs))

    def _linear(self, linear: LinearCall) -> Tensor:
        """Cut where a consumer reads, and begin a value of the tape at a producer."""
        weight = self._names.get(id(linear.parameters[0]))
        if weight in self._consumers:
            if not torch.is_grad_enabled():
                raise ModelError(
                    f"{weight}: expected a layer with gradients, got one under no_grad or a reentrant checkpoint"
                )
            self.tape.read(linear.input)
            linear.input = linear.input.view_as(linear.input)
        if weight not in self._weights:
            out: Tensor = self.tape.apply(*linear.call)
            return out
        producer = self.producers[weight] = Producer(linear)
        out, producer.value = self.tape.leaf(producer, linear.input)
        return out

    def linearise(self, loss: Tensor) -> None:
        """Find the derivatives that the products need."""
        self.tape.settle()
        for producer in self.producers.values():
            user = self.tape.only_user(producer.value)
            if isinstance(user, Elementwise) and user.scale is not None and producer.takes_over(user.scale):
                user.scale = None
        torch.autograd.grad(loss, self.tape.anchor, allow_unused=True)


def _itself(x: Tensor) -> Tensor:
    return x


def _check_deterministic(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse dropout that is called as a function and draws a mask, whatever mode the model is in."""
    if name in DROPOUTS:
        named = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
        active = named.get("training", named.get("train", not name.endswith("alpha_dropout")))
        if active and named.get("p", 0.5) > 0:
            raise ModelError(f"{name}: expected training=False during curvature, got a call of it that drops")
