"""Sums over channels of the products of two tensors, as of queries with keys, and what carries the weights of copies.

The scores of attention are s_nm = sum_d q_nd k_md. Channel d is one neuron, with the parameters of q_d and of k_d, and
the sum reads it with a weight of one. If copies q_j k_j are to have weights w_j, something must carry them. Either
factor can, if it comes from a layer through nothing but reshapes and scales: the entries of that layer (rows and
biases, or the scale and the shift of a batch norm) are multiplied by w_j as the columns of any reader are.

Attention without a scale of its own divides by the square root of the number of channels d. What carries the weights
makes up for that too: with d' channels it is multiplied by sqrt(d'/d).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Layer, Role
from nni_s3d.growth.graph.functions import KINDS, LENDS_SHAPE, PRODUCTS, Kind
from nni_s3d.growth.graph.own_tensors import OwnTensors

_PASSED = frozenset((Kind.IDENTITY, Kind.CAST, Kind.MOVE, Kind.RESHAPE, Kind.CUT, Kind.AVERAGE_POOL, Kind.PRODUCT))
_LAYERS = frozenset(
    (
        *(Kind.LINEAR, Kind.BATCH_NORM, Kind.EMBEDDING),
        *(Kind.MATRIX_PRODUCT, Kind.AFFINE_MATRIX_PRODUCT, Kind.SUM_OF_PRODUCTS),
    )
)

Labels = Callable[[object], Tensor | None]


@dataclass(frozen=True)
class _Call:
    name: str  # of the function
    given: Sequence[Tensor]
    outputs: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class _Path:
    """The way of a factor from the layer that it comes from to a product."""

    side: Tensor  # the factor
    tensors: frozenset[int]  # ids of what lies on the way
    labels: np.ndarray  # of the channels
    entries: tuple[Axis, ...]  # of the layer, along which its parameters have an entry for each channel


@dataclass(eq=False)
class _Product:
    """A sum over channels of the products of two tensors."""

    name: str  # of the function
    sides: tuple[Tensor, Tensor]
    channels: Tensor  # (..., d) labels of the channels that it sums over
    divides: bool  # whether it divides by the square root of d
    call: int  # how many calls were made before
    carrier: _Path | None = None  # of the factor that carries the weights


@dataclass
class ProductsOfChannels:
    """The products of one run.

    Attributes:
        carrying: {(name of a parameter, dimension): (n,) bool, which of its entries carry the weights of copies}.
        divided: labels (..., d) of the channels of each product that divides by the square root of d.
        summed: labels of the channels that products sum over.
        in_heads: labels of channels in parts that meet those of another tensor, so that the number of parts stays.
    """

    carrying: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    divided: list[Tensor] = field(default_factory=list)
    summed: list[Tensor] = field(default_factory=list)
    in_heads: list[Tensor] = field(default_factory=list)
    _calls: list[_Call] = field(default_factory=list)
    _products: list[_Product] = field(default_factory=list)

    def note_call(self, name: str, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note a call that takes channels, or returns some."""
        self._calls.append(_Call(name, given[:1] if name in LENDS_SHAPE else given, outputs))

    def note(self, name: str, query: Tensor, key: Tensor, channels: Tensor, divides: bool) -> None:
        """Note a product over channels (..., d) of two tensors, which is about to be noted as a call.

        Args:
            name: of the function.
            query: a factor.
            key: the factor that carries the weights, if both can.
            channels: their labels.
            divides: whether the function divides by the square root of d.
        """
        self._products.append(_Product(name, (key, query), channels, divides, len(self._calls)))

    def close(
        self, labels: Labels, layers: Sequence[Layer], own: OwnTensors, parameters: Collection[str]
    ) -> Iterator[tuple[Tensor, str]]:
        """Find what carries the weights of each product; yield the channels for which nothing can, and why.

        Args:
            labels: of a tensor.
            layers: of the run.
            own: knows the model's own tensors.
            parameters: names of those that are parameters.
        """
        if not self._products:  # as a rule
            return
        carriers = _Carriers(self._calls, self._products, labels, layers, own, parameters)
        for product in self._products:
            if reason := carriers.why_not(product):
                yield product.channels, reason
                continue
            assert product.carrier is not None
            self.summed.append(product.channels)
            if product.divides:
                self.divided.append(product.channels)
            for axis in product.carrier.entries:
                carrying = torch.from_numpy(np.isin(axis.slots.numpy(), product.carrier.labels))
                before = self.carrying.get((axis.tensor, axis.dim), torch.zeros_like(carrying))
                self.carrying[axis.tensor, axis.dim] = before | carrying


class _Carriers:
    """Chooses what carries the weights of copies in each product."""

    def __init__(
        self,
        calls: Sequence[_Call],
        products: Sequence[_Product],
        labels: Labels,
        layers: Sequence[Layer],
        own: OwnTensors,
        parameters: Collection[str],
    ) -> None:
        self._calls, self._labels, self._own, self._products = calls, labels, own, products
        self._product_of = {product.call: product for product in products}
        self._entries: list[tuple[str, list[Axis]]] = []  # by layer
        for layer in (layer for layer in layers if layer.parameters):
            axes = [axis for axis in layer.axes if axis.role is not Role.COLUMN and axis.tensor in parameters]
            self._entries.append((layer.weight, axes))
        self._makers: dict[int, list[int]] = {}  # the calls that have returned a tensor, by its id
        self._takers: dict[int | str, list[int]] = {}  # those that take it, or a parameter, by its name
        for n, call in enumerate(calls):
            for output in call.outputs:
                self._makers.setdefault(id(output), []).append(n)
            taken: set[int | str] = {*map(id, call.given), *(name for x in call.given for name in own.behind(x))}
            for key in taken:
                self._takers.setdefault(key, []).append(n)
        for product in products:
            product.carrier = next(self._carriers(product), None)
        for product in products:
            self._exchange(product)

    def why_not(self, product: _Product) -> str:
        """Say why nothing can carry the weights of a product; nothing if all is well."""
        if product.carrier is not None and not self._other_use(product, product.carrier):
            return ""
        bars = " and ".join(dict.fromkeys(self._bar(product, side) for side in product.sides))
        return (
            f"{product.name} multiplies its channels with those of another tensor, as queries with keys, and neither "
            f"can take the weights of copies on its way from a layer, because of {bars}; let the keys or the queries "
            "come from their layer through reshapes and scales alone, and use them for nothing else"
        )

    def _bar(self, product: _Product, side: Tensor) -> str:
        """Name what keeps a factor from carrying the weights."""
        way = self._way(product, side)
        return way if isinstance(way, str) else f"{self._other_use(product, way)} (which takes it too)"

    def _carriers(self, product: _Product) -> Iterator[_Path]:
        ways = (self._way(product, side) for side in product.sides)
        return (way for way in ways if isinstance(way, _Path))

    def _exchange(self, product: _Product) -> None:
        """Let the other factor carry the weights if the first one is used for something else too."""
        for way in self._carriers(product):
            if not self._other_use(product, way):
                product.carrier = way
                return

    def _way(self, product: _Product, side: Tensor) -> _Path | str:
        """Return the way of a factor from its layer, or what bars it."""
        labels, tensor, before, met = self._labels(side), side, product.call, {id(side)}
        assert labels is not None
        while True:
            before = max((n for n in self._makers.get(id(tensor), ()) if n < before), default=-1)
            if before < 0:
                return "what is no result of a layer"
            call = self._calls[before]
            if KINDS.get(call.name) in _LAYERS:
                numbers = labels.unique().numpy()
                entries = self._entries_of(call, numbers)
                if not entries:
                    is_layer = KINDS[call.name] not in PRODUCTS
                    return f"a {call.name} without a parameter for each channel" if is_layer else call.name
                return _Path(side, frozenset(met), numbers, entries)
            taken = [x for x in call.given if self._labels(x) is not None]
            if len(taken) != 1 or not _is_passed(call, taken[0]):
                return call.name
            tensor = taken[0]
            met.add(id(tensor))

    def _entries_of(self, call: _Call, numbers: np.ndarray) -> tuple[Axis, ...]:
        """Return the axes along which the parameters of a layer have entries for all of these labels, if all have."""
        views = [self._own.view(x) for x in call.given]
        names = {view.name for view in views if view is not None}
        for weight, axes in self._entries:
            given = weight in names and all(axis.tensor in names for axis in axes)
            if given and all(bool(np.isin(numbers, axis.slots.numpy()).all()) for axis in axes):
                return tuple(axes)
        return ()

    def _other_use(self, product: _Product, path: _Path) -> str:
        """Return a function that takes what would carry the weights for something else, if there is one."""
        others = [one for one in self._products if one is not product and one.divides == product.divides]
        on_the_way = path.tensors.union(*(one.carrier.tensors for one in others if one.carrier))
        keys: list[int | str] = [*path.tensors, *(axis.tensor for axis in path.entries)]
        for n in sorted({n for key in keys for n in self._takers.get(key, ())}):
            call, other = self._calls[n], self._product_of.get(n)
            if other is None:
                alright = self._stays(call, path, on_the_way)
            else:
                carrier = path if other is product else other.carrier
                alright = carrier is not None and other.divides == product.divides
                alright &= [id(x) for x in call.given if id(x) in path.tensors] == [id(carrier and carrier.side)]
            if not alright:
                return call.name
        return ""

    def _stays(self, call: _Call, path: _Path, on_the_way: Collection[int]) -> bool:
        """Whether all that a call returns of what carries the weights is on its way to a product."""
        shared = [x for x in call.outputs if self._has(x, path.labels)]
        leads_on = all(id(x) in on_the_way for x in shared)
        return leads_on and (bool(shared) or KINDS.get(call.name) is Kind.CUT)

    def _has(self, tensor: Tensor, numbers: np.ndarray) -> bool:
        labels = self._labels(tensor)
        return labels is not None and bool(np.isin(labels.numpy(), numbers).any())


def _is_passed(call: _Call, tensor: Tensor) -> bool:
    """Whether a function of a tensor is multiplied by a number wherever the tensor is."""
    kind = KINDS.get(call.name)
    if kind is Kind.CONCATENATE:  # to what was empty so far
        return all(x is tensor or not x.numel() for x in call.given)
    return call.name == "neg" or (kind in _PASSED and (call.given[0] is tensor or "mul" in call.name))
