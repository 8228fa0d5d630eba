"""Sums over channels of the products of two tensors, as of queries with keys, and what carries the weights of copies.

The scores of attention are s_nm = sum_d q_nd k_md. Channel d is one neuron, with the parameters of q_d and of k_d, and
the sum reads it with a weight of one. If copies q_j k_j are to have weights w_j, something must carry them. Either
factor can, if it comes from a layer through nothing but reshapes and scales: the entries of that layer (rows and
biases, or the scale and the shift of a batch norm) are multiplied by w_j as the columns of any reader are.

Attention without a scale of its own divides by the square root of the number of channels d. What carries the weights
makes up for that too: with d' channels it is multiplied by sqrt(d'/d).

Where neighbours are sought among features x, as in a dynamic graph, a sum is only ranked: no derivative passes what
comes out. It stays as it is if the distances have a metric, sum_d g_d (x_nd - x_md)^2: a buffer with an entry for each
channel, which nothing else takes. The copies of a channel share its entry out, each gets g |w_j| / sum_k |w_k|. That
is never negative, as w_j may be, and all of it stays with the old neuron where a new one is added (w_j = 0).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.carriers import Call, Carriers, Labels, Product
from nni_s3d.growth.graph.channels import Layer
from nni_s3d.growth.graph.functions import LENDS_SHAPE
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.reach import Reach


@dataclass
class ProductsOfChannels:
    """The products of one run.

    Attributes:
        carrying: {(name of a parameter, dimension): (n,) bool, which of its entries carry the weights of copies}.
        metrics: the parameters and buffers, each with the dimension, that carry the shares of copies instead.
        divided: labels (..., d) of the channels of each product that divides by the square root of d.
        summed: labels of the channels that products sum over.
        in_heads: labels of channels in parts that meet those of another tensor, so that the number of parts stays.
        reach: where the products have an effect.
    """

    carrying: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    metrics: set[tuple[str, int]] = field(default_factory=set)
    divided: list[Tensor] = field(default_factory=list)
    summed: list[Tensor] = field(default_factory=list)
    in_heads: list[Tensor] = field(default_factory=list)
    reach: Reach = field(default_factory=Reach)
    _calls: list[Call] = field(default_factory=list)
    _products: list[Product] = field(default_factory=list)
    _readers: list[tuple[str, int]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many sums over channels the run has come to."""
        return len(self._products)

    def note_call(self, name: str, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note a call that takes channels, or returns some."""
        if self._products and self._products[-1].call == len(self._calls):
            self.reach.begin(self._products[-1], outputs)
        self._calls.append(Call(name, given[:1] if name in LENDS_SHAPE else given, outputs))

    def note(
        self, name: str, sides: tuple[Tensor, ...], channels: Tensor, divides: bool, reading: int | None, reason: str
    ) -> None:
        """Note a sum over channels (..., d), which is about to be noted as a call.

        Args:
            name: of the function.
            sides: the factors, first the one that carries the weights if both can; or the one tensor that is summed.
            channels: their labels.
            divides: whether the function divides by the square root of d.
            reading: see `Product`.
            reason: why the channels are refused, if nothing carries the weights; empty for what bars two factors.
        """
        self._products.append(Product(name, sides, channels, divides, len(self._calls), reading, reason))

    def note_reader(self, name: str, dim: int, out: Tensor) -> None:
        """Note what a vector of the model, with an entry for each channel along a dimension, has read of them."""
        self._readers.append((name, dim))
        self.reach.begin((name, dim), [out])

    def close(
        self,
        labels: Labels,
        layers: Sequence[Layer],
        own: OwnTensors,
        parameters: Collection[str],
        outputs: Sequence[Tensor],
    ) -> Iterator[tuple[Tensor, str]]:
        """Find what carries the weights of each product; yield the channels for which nothing can, and why.

        Args:
            labels: of a tensor.
            layers: of the run.
            own: knows the model's own tensors.
            parameters: names of those that are parameters.
            outputs: of the network.
        """
        if not self.reach.begun:  # as a rule
            return
        reached = self.reach.of(outputs)
        self.metrics.update(reader for reader in self._readers if reader not in reached)
        for product in self._products:
            product.ranks = product not in reached
        carriers = Carriers(self._calls, self._products, labels, layers, own, parameters)
        for product in self._products:
            if reason := carriers.why_not(product):
                yield product.channels, reason
                continue
            assert product.carrier is not None
            for axis in product.carrier.entries:
                carrying = torch.from_numpy(np.isin(axis.slots.numpy(), product.carrier.labels))
                before = self.carrying.get((axis.tensor, axis.dim), torch.zeros_like(carrying))
                self.carrying[axis.tensor, axis.dim] = before | carrying
            if product.carrier.is_metric:
                self.metrics.update((axis.tensor, axis.dim) for axis in product.carrier.entries)
                continue
            self.summed.append(product.channels)
            if product.divides:
                self.divided.append(product.channels)

    @property
    def unread(self) -> Iterator[int]:
        """Yield the calls that read no channels for the loss, though they sum over them: see `Product.reading`."""
        ranked = (p for p in self._products if p.carrier is not None and p.carrier.is_metric)
        return (product.reading for product in ranked if product.reading is not None)
