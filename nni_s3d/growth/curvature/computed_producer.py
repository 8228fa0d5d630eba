"""Producers whose weight is computed from their parameters: u = X W(theta), linear in W alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from nni_s3d.growth.curvature.nodes import TwiceDifferentiable
from nni_s3d.growth.curvature.producer import LinearCall, Producer
from nni_s3d.growth.graph.channels import Layer
from nni_s3d.growth.graph.own_tensors import OwnTensors


class ComputedProducer(Producer):
    """A producer whose rows are normalised, masked or a sum of products, say.

    The chain rule gives S v = W' X' H X W' v + (W'' v) X' g, where W' and W'' are derivatives of W with respect to
    theta, and g is the derivative of the loss with respect to u.

    Args:
        linear: the call.
        own: knows how the weight was made.
        names: of the parameters in theta.
    """

    def __init__(self, linear: LinearCall, own: OwnTensors, names: Sequence[str]) -> None:
        super().__init__(linear)
        self._sources = [name for name in names if name not in linear.names[1:]]
        weight = linear.parameters[0]
        self._weight = TwiceDifferentiable(
            range(len(self._sources)),
            lambda *values: own.made_again(weight, dict(zip(self._sources, values, strict=True))),
        )
        self._weight.run(*(own.tensor(name).detach() for name in self._sources))

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """Return the derivatives with respect to the input."""
        self._weight.linearize(self._vjp(cotangents, self._parameters[:1]))
        return super().linearize(cotangents)

    def absorb_scale(self, scale: Tensor) -> bool:
        """A scale stays where it is."""
        return False

    def times(self, filters: Mapping[str, Tensor], layer: Layer) -> Tensor:
        """Return X W' v for tangents v that are shaped like the parameters."""
        weight = self._weight.jvp([filters[name] for name in self._sources])
        self._weight.saved = None
        (moved,) = weight
        assert moved is not None
        return self._linear.run([moved, *(filters[name] for name in self._biases(layer))])

    def transpose_times(self, cotangent: Tensor, layer: Layer) -> dict[str, Tensor]:
        """Return W' X' w by parameter, for w that is shaped like u."""
        weight, *bias = self._vjp([cotangent], self._parameters)
        rows = dict(zip(self._sources, self._weight.transpose([weight]), strict=True))
        rows |= dict(zip(self._biases(layer), bias, strict=True))
        return {name: row for name, row in rows.items() if row is not None}

    def second_order(self, filters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return (W'' v) X' g by parameter; nothing where no derivative of the loss arrives."""
        if not self._weight.linearized:
            return {}
        self._weight.jvp([filters[name] for name in self._sources])
        rows, self._weight.saved = self._weight.saved, None
        return {name: row for name, row in zip(self._sources, rows, strict=True) if row is not None}

    def _biases(self, layer: Layer) -> list[str]:
        return [name for name in layer.parameters if name not in self._sources]
