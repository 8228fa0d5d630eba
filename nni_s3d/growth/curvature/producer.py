"""Producers, linear in their parameters: u = X theta, products with X and with its transpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.curvature.vjp import Vjp
from nni_s3d.growth.graph.channels import Layer
from nni_s3d.growth.graph.functions import KINDS, Kind, canonical_name, filters_come_first
from nni_s3d.growth.graph.own_tensors import OwnTensors


class LinearCall:
    """One call of linear or conv*, whose arguments all begin with (input, weight, bias), or of an embedding.

    Args:
        func: the function.
        args: its arguments.
        kwargs: its keywords.
        own: knows what views of the model's own tensors are, such as a transposed weight.

    Attributes:
        parameters: weight and bias, as the model owns them, or as they are given if it does not; of stacks, one block.
        names: theirs, or of what stands for them; None for a tensor that is not made of the model's own.
        block: which one of a stack, None if they are in none.
    """

    def __init__(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], own: OwnTensors | None = None
    ) -> None:
        places: tuple[str, ...] = ("input", "weight", "bias")
        self._looks_up = KINDS.get(canonical_name(func)) is Kind.EMBEDDING
        if self._looks_up:
            places = places[:2]
        named = dict(zip(places, args, strict=False)) | kwargs
        self.input: Tensor = named.pop("input")
        self._given: list[Tensor] = [p for p in (named.pop("weight"), named.pop("bias", None)) if p is not None]
        self._views = [None if own is None else own.view(x) or own.block(x) for x in self._given]
        self.names = [None if own is None else own.stands_for(tensor) for tensor in self._given]
        self.block = None if self._views[0] is None else self._views[0].block
        self.parameters = [
            given if own is None or view is None else _of(own.tensor(view.name), view.block)
            for given, view in zip(self._given, self._views, strict=True)
        ]
        self._func, self._settings, self._places = func, named, len(places)
        self._rest = args[len(places) :]

    @property
    def is_computed(self) -> bool:
        """Whether the weight is computed from parameters, and none of them itself."""
        return self._views[0] is None

    @property
    def transposed(self) -> bool:
        """Whether the filters are not along the first dimension of the weight."""
        view = self._views[0]
        first = int(self.block is not None)
        return not filters_come_first(self._func) or (view is not None and view.dims[0] != first)

    @property
    def call(self) -> tuple[Callable[..., Tensor], str, tuple[Any, ...], dict[str, Any]]:
        """Function, name, arguments and keywords."""
        return self._func, canonical_name(self._func), self._arguments(self._given), self._settings

    def run(self, parameters: list[Tensor]) -> Tensor:
        """Call the function with these parameters, in the order of `parameters`."""
        seen = [p if view is None else view.seen(p) for p, view in zip(parameters, self._views, strict=True)]
        if self._looks_up:
            # The row for padding counts as all others do: it has no gradient, but the function depends on it.
            return self._func(self.input, *seen)
        return self._func(*self._arguments(seen), **self._settings)

    def _arguments(self, tensors: list[Tensor]) -> tuple[Any, ...]:
        return (self.input, *tensors, None)[: self._places] + self._rest


class Producer:
    """A producer applied to its input X, a step of autograd.

    Attributes:
        value: the number of u on the tape, or of u times a scale that the producer has absorbed.
    """

    value: int

    def __init__(self, linear: LinearCall) -> None:
        self._linear, self._continues = linear, linear.input.requires_grad
        self._parameters = [p.detach().requires_grad_() for p in linear.parameters]
        self._scale: Tensor | None = None  # (filters,) or (1,)

    def run(self, *tensors: Tensor) -> Tensor:
        """Return u. The graph of this one application is kept: running it backwards is the product with X'."""
        # What an embedding looks up has no derivative.
        self._linear.input = tensors[0].detach().requires_grad_(tensors[0].is_floating_point())
        with torch.enable_grad():
            applied = self._linear.run(self._parameters)
        self._vjp = Vjp([applied])
        self.dtype, self.device = applied.dtype, applied.device
        return applied.detach()

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """Return the derivatives with respect to the input."""
        if not self._continues:
            return [None]
        return self._vjp(cotangents, [self._linear.input])

    def absorb_scale(self, scale: Tensor) -> bool:
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
    def block(self) -> int | None:
        """Which block of its parameters it applies, None for all of them."""
        return self._linear.block

    @property
    def input(self) -> Tensor:
        """X, as the layer takes it."""
        return self._linear.input

    @torch.no_grad()
    def times(self, filters: Mapping[str, Tensor], layer: Layer) -> Tensor:
        """Return X v for filters v that are shaped like the parameters."""
        # Laid out like the parameters, since tangents would else be laid out unlike what they are multiplied by.
        laid_out = [torch.empty_like(p) for p in self._parameters]
        given = (_of(filters[name], self.block) for name in layer.parameters)
        return self._linear.run([q.copy_(self._scaled(v)) for q, v in zip(laid_out, given, strict=True)])

    def transpose_times(self, cotangent: Tensor, layer: Layer) -> dict[str, Tensor]:
        """Return X' w by parameter, or of the block of it, for w that is shaped like the value."""
        rows = self._vjp([cotangent], self._parameters)
        return dict(zip(layer.parameters, map(self._scaled, rows), strict=True))

    def second_order(self, filters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return by parameter what moving filters v adds since u is no linear function of them: nothing here."""
        return {}

    def _scaled(self, filters: Tensor) -> Tensor:
        return filters if self._scale is None else filters * self._scale.reshape(-1, *[1] * (filters.dim() - 1))


def _of(tensor: Tensor, block: int | None) -> Tensor:
    return tensor if block is None else tensor[block]
