"""Run a network so that every consumer's input can be told apart, and so that it is cut there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from nni_s3d.errors import ModelError
from nni_s3d.growth.channels import ChannelGraph, Layer
from nni_s3d.growth.modes import call
from nni_s3d.growth.tape import Tape
from nni_s3d.growth.tracing import DROPOUTS, LINEAR, canonical_name

LossFn = Callable[[Any, Any], Tensor]


class LinearCall:
    """One call of linear or conv*, whose arguments all begin with (input, weight, bias)."""

    def __init__(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        self.input: Tensor = named.pop("input")
        self.parameters: list[Tensor] = [p for p in (named.pop("weight"), named.pop("bias", None)) if p is not None]
        self._func, self._rest, self._settings = func, args[3:], named

    @property
    def call(self) -> tuple[Callable[..., Tensor], str, tuple[Any, ...], dict[str, Any]]:
        """Function, name, arguments and keywords."""
        weight, bias = (*self.parameters, None)[:2]
        return self._func, canonical_name(self._func), (self.input, weight, bias, *self._rest), self._settings

    def run(self, parameters: list[Tensor]) -> Tensor:
        """Call the function with these parameters, in the order of `parameters`."""
        weight, bias = (*parameters, None)[:2]
        return self._func(self.input, weight, bias, *self._rest, **self._settings)


class Producer:
    """A producer applied to its input X: u = X theta, and products with X and its transpose."""

    value: int  # the number of u on the tape

    def __init__(self, linear: LinearCall) -> None:
        linear.input = linear.input.detach()
        self._linear = linear
        self._parameters = [p.detach().requires_grad_() for p in linear.parameters]
        # The graph of this one application is kept: running it backwards is the product with X'.
        with torch.enable_grad():
            applied = linear.run(self._parameters)
        self._applied = get_gradient_edge(applied)
        self.dtype, self.device = applied.dtype, applied.device
        self.output: Tensor | None = applied.detach()

    @torch.no_grad()
    def times(self, filters: Mapping[str, Tensor], layer: Layer) -> Tensor:
        """Return X v for filters v that are shaped like the parameters."""
        return self._linear.run([filters[name] for name in layer.parameters])

    def transpose_times(self, cotangent: Tensor, layer: Layer) -> dict[str, Tensor]:
        """Return X' u by parameter."""
        found = torch.autograd.grad([self._applied], self._parameters, [cotangent], retain_graph=True)
        return dict(zip(layer.parameters, found, strict=True))


class Probe(TorchFunctionMode):
    """Gives every consumer a private copy of its input, so that its own effect on the loss can be read there."""

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._consumers = {layer.weight for group in graph.splittable for layer in group.consumers}
        self.read: dict[str, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, canonical_name(func)
        if name not in LINEAR:
            _check_deterministic(name, args, kwargs)
            return self.other(func, name, args, kwargs)
        linear = LinearCall(func, args, kwargs)
        weight = self._names.get(id(linear.parameters[0]))
        if weight in self._consumers:
            linear.input = self.at_consumer(weight, linear.input)
        return self.apply(weight, linear)

    def at_consumer(self, weight: str, z: Tensor) -> Tensor:
        """Return what a consumer is given in place of its input."""
        if not torch.is_grad_enabled():
            raise ModelError(
                f"{weight}: expected a layer with gradients, got one under no_grad or a reentrant checkpoint"
            )
        self.read[weight] = z.view_as(z) if z.requires_grad else z.detach().requires_grad_()
        return self.read[weight]

    def apply(self, weight: str | None, linear: LinearCall) -> Tensor:
        """Call a linear function."""
        return linear.run(linear.parameters)

    def other(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call any other function."""
        return func(*args, **kwargs)


class Cut(Probe):
    """Cuts the network at its consumers, and records on a tape what lies between them and the producers."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, effects: dict[str, Tensor], smoothing: float) -> None:
        super().__init__(model, graph)
        self._weights = {layer.weight for group in graph.splittable for layer in group.producers}
        self._effects = effects
        self.tape = Tape(smoothing)
        self.producers: dict[str, Producer] = {}

    def at_consumer(self, weight: str, z: Tensor) -> Tensor:
        """Note what the consumer reads, and cut."""
        if self.tape.alive(z):
            self.tape.read(z, self._effects[weight])
        return z.detach()

    def apply(self, weight: str | None, linear: LinearCall) -> Tensor:
        """Begin a value of the tape at every producer."""
        if weight not in self._weights:
            out: Tensor = self.tape.apply(*linear.call)
            return out
        producer = self.producers[weight] = Producer(linear)
        output, producer.output = producer.output, None
        assert output is not None
        producer.value = self.tape.leaf(output)
        return output

    def other(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record the function."""
        return self.tape.apply(func, name, args, kwargs)


def effects_of(
    model: nn.Module, graph: ChannelGraph, inputs: object, targets: object, loss_fn: LossFn
) -> dict[str, Tensor]:
    """Return g_c, the derivative of the loss with respect to every consumer's input as that consumer reads it."""
    probe = Probe(model, graph)
    with probe:
        outputs = call(model, inputs)
    loss = loss_fn(outputs, targets)
    if loss.dim():
        raise ModelError(f"loss_fn: expected a scalar, the mean over the batch, got shape {tuple(loss.shape)}")
    read = list(probe.read.values())
    effects = torch.autograd.grad(loss, read, allow_unused=True)
    filled = [torch.zeros_like(z) if g is None else g for g, z in zip(effects, read, strict=True)]
    return dict(zip(probe.read, filled, strict=True))


def _check_deterministic(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse dropout that is called as a function and draws a mask, whatever mode the model is in."""
    if name in DROPOUTS:
        named = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
        active = named.get("training", named.get("train", not name.endswith("alpha_dropout")))
        if active and named.get("p", 0.5) > 0:
            raise ModelError(f"{name}: expected training=False during curvature, got a call of it that drops")
