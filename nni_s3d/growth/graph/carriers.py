"""What carries the weights of copies in sums over channels, see `products_of_channels`: a layer, or a metric.

A factor carries them if it comes from a layer through nothing but reshapes and scales. Where a sum only ranks, a metric
that a factor is multiplied by carries their shares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Layer, Role
from nni_s3d.growth.graph.functions import KINDS, PRODUCTS, Kind
from nni_s3d.growth.graph.own_tensors import OwnTensors

_PASSED = frozenset((Kind.IDENTITY, Kind.CAST, Kind.MOVE, Kind.RESHAPE, Kind.CUT, Kind.AVERAGE_POOL, Kind.PRODUCT))
_LAYERS = frozenset(
    (
        *(Kind.LINEAR, Kind.BATCH_NORM, Kind.EMBEDDING),
        *(Kind.MATRIX_PRODUCT, Kind.AFFINE_MATRIX_PRODUCT, Kind.SUM_OF_PRODUCTS),
    )
)

_RANKS = (
    "only to rank what comes out, as nearest neighbours are found; multiply one factor by a metric: a buffer with an "
    "entry for every channel, ones at first, that is used for nothing else"
)

Labels = Callable[[object], Tensor | None]


@dataclass(frozen=True)
class Call:
    """A call that takes channels, or returns some."""

    name: str  # of the function
    given: Sequence[Tensor]
    outputs: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class Path:
    """The way of a factor to a sum, from the layer that it comes from, or from the metric that it is multiplied by."""

    side: Tensor  # the factor
    tensors: frozenset[int]  # ids of what lies on the way
    labels: np.ndarray  # of the channels
    entries: tuple[Axis, ...]  # of the layer or metric, along which it has an entry for each channel
    is_metric: bool = False


@dataclass(eq=False)
class Product:
    """A sum over channels: of the products of two tensors, or of one tensor."""

    name: str  # of the function
    sides: tuple[Tensor, ...]
    channels: Tensor  # (..., d) labels of the channels that it sums over
    divides: bool  # whether it divides by the square root of d
    call: int  # how many calls were made before
    reading: int | None  # which of the calls that may read channels it is, see `averages.ReadingCalls`; None for none
    reason: str  # why its channels are refused, if nothing carries the weights
    ranks: bool = False  # whether what comes out has no derivative, and at most ranks positions
    carrier: Path | None = None  # of the factor that carries the weights

    def goes_with(self, other: Product, path: Path) -> bool:
        """Whether the same entries can carry the weights of another product, which has this way from them."""
        is_metric = self.carrier is not None and self.carrier.is_metric
        return (self.divides, is_metric) == (other.divides, path.is_metric)


class Carriers:
    """Chooses what carries the weights of copies in each product."""

    def __init__(
        self,
        calls: Sequence[Call],
        products: Sequence[Product],
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
        scales = (axis for layer in layers if layer.kind == "scale" for axis in layer.axes if axis.blocks == 1)
        self._scales = {axis.tensor: axis for axis in scales}
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

    def why_not(self, product: Product) -> str:
        """Say why nothing can carry the weights of a product; nothing if all is well."""
        if product.carrier is not None and not self._other_use(product, product.carrier):
            return ""
        if product.ranks:
            return f"{product.name} sums over its channels {_RANKS}"
        if product.reason:
            return product.reason
        bars = " and ".join(dict.fromkeys(self._bar(product, side) for side in product.sides))
        return (
            f"{product.name} multiplies its channels with those of another tensor, as queries with keys, and neither "
            f"can take the weights of copies on its way from a layer, because of {bars}; let the keys or the queries "
            "come from their layer through reshapes and scales alone, and use them for nothing else"
        )

    def _bar(self, product: Product, side: Tensor) -> str:
        """Name what keeps a factor from carrying the weights."""
        way = self._way(product, side)
        return way if isinstance(way, str) else f"{self._other_use(product, way)} (which takes it too)"

    def _carriers(self, product: Product) -> Iterator[Path]:
        if product.ranks:
            for side in product.sides:
                yield from self._metrics(side, side, product.call, frozenset())
        if len(product.sides) == 2:
            ways = (self._way(product, side) for side in product.sides)
            yield from (way for way in ways if isinstance(way, Path))

    def _exchange(self, product: Product) -> None:
        """Let the other factor carry the weights if the first one is used for something else too."""
        for way in self._carriers(product):
            if not self._other_use(product, way):
                product.carrier = way
                return

    def _metrics(self, side: Tensor, tensor: Tensor, before: int, met: frozenset[int]) -> Iterator[Path]:
        """Yield the ways of a factor from metrics, in which it is linear."""
        made = max((n for n in self._makers.get(id(tensor), ()) if n < before), default=-1)
        if made < 0:
            return
        call, met, labels = self._calls[made], met | {id(tensor)}, self._labels(side)
        assert labels is not None
        numbers = labels.unique().numpy()
        multiplies = KINDS.get(call.name) is Kind.PRODUCT and "mul" in call.name
        for view in map(self._own.view, call.given if multiplies else ()):
            scale = None if view is None else self._scales.get(view.name)
            if scale is not None and bool(np.isin(numbers, scale.slots.numpy()).all()):
                yield Path(side, met, numbers, (scale,), is_metric=True)
        taken = [x for x in call.given if self._labels(x) is not None]
        for x in taken:
            once = len(taken) == 1 or (multiplies and len({*map(id, taken)}) == len(taken))
            if once and (multiplies or _is_passed(call, x)):
                yield from self._metrics(side, x, made, met)

    def _way(self, product: Product, side: Tensor) -> Path | str:
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
                return Path(side, frozenset(met), numbers, entries)
            taken = [x for x in call.given if self._labels(x) is not None]
            if len(taken) != 1 or not _is_passed(call, taken[0]):
                return call.name
            tensor = taken[0]
            met.add(id(tensor))

    def _entries_of(self, call: Call, numbers: np.ndarray) -> tuple[Axis, ...]:
        """Return the axes along which the parameters of a layer have entries for all of these labels, if all have."""
        views = [self._own.view(x) for x in call.given]
        names = {view.name for view in views if view is not None}
        for weight, axes in self._entries:
            given = weight in names and all(axis.tensor in names for axis in axes)
            if given and all(bool(np.isin(numbers, axis.slots.numpy()).all()) for axis in axes):
                return tuple(axes)
        return ()

    def _other_use(self, product: Product, path: Path) -> str:
        """Return a function that takes what would carry the weights for something else, if there is one."""
        others = [one for one in self._products if one is not product and one.goes_with(product, path)]
        on_the_way = path.tensors.union(*(one.carrier.tensors for one in others if one.carrier))
        keys: list[int | str] = [*path.tensors, *(axis.tensor for axis in path.entries)]
        for n in sorted({n for key in keys for n in self._takers.get(key, ())}):
            call, other = self._calls[n], self._product_of.get(n)
            if other is None:
                alright = self._stays(call, path, on_the_way)
            else:
                carrier = path if other is product else other.carrier
                alright = carrier is not None and (other is product or other.goes_with(product, path))
                alright &= [id(x) for x in call.given if id(x) in path.tensors] == [id(carrier and carrier.side)]
            if not alright:
                return call.name
        return ""

    def _stays(self, call: Call, path: Path, on_the_way: Collection[int]) -> bool:
        """Whether all that a call returns of what carries the weights is on its way to a product."""
        shared = [x for x in call.outputs if self._has(x, path.labels)]
        leads_on = all(id(x) in on_the_way for x in shared)
        return leads_on and (bool(shared) or KINDS.get(call.name) is Kind.CUT)

    def _has(self, tensor: Tensor, numbers: np.ndarray) -> bool:
        labels = self._labels(tensor)
        return labels is not None and bool(np.isin(labels.numpy(), numbers).any())


def _is_passed(call: Call, tensor: Tensor) -> bool:
    """Whether a function of a tensor is multiplied by a number wherever the tensor is."""
    kind = KINDS.get(call.name)
    if kind is Kind.CONCATENATE:  # to what was empty so far
        return all(x is tensor or not x.numel() for x in call.given)
    return call.name == "neg" or (kind in _PASSED and (call.given[0] is tensor or "mul" in call.name))
