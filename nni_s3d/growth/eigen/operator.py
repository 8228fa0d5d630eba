"""The input of a solver: symmetric matrices that are known by their products with vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import scipy
import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError

Vectors = dict[str, Tensor]  # by group, (n, d) each: one vector for every matrix


class Minibatch(Protocol):
    """What the stochastic solver needs of one minibatch."""

    def matvec(self, vectors: Mapping[str, Tensor]) -> Vectors:
        """Return the products of all matrices of the given names with one vector each."""


class Fold(Minibatch, Protocol):
    """What the other solvers need of one fold of the samples."""

    samples: int

    def dense(self, name: str) -> Tensor:
        """Return the matrices of one name, (n, d, d)."""


class Operator(Protocol):
    """Symmetric matrices, n of them (d, d) for every name in `shapes`, known by their products with vectors."""

    shapes: dict[str, tuple[int, int]]
    dtype: torch.dtype
    device: torch.device

    def matvec(self, vectors: Mapping[str, Tensor]) -> Vectors:
        """Return the products of all matrices of the given names with one vector each."""

    @property
    def folds(self) -> Sequence[Fold]:
        """Return a few operators over disjoint samples, of which this one is the mean, weighted by their samples."""

    @property
    def parts(self) -> Sequence[Minibatch]:
        """Return operators whose mean is this one: one per minibatch."""


def shape_of(shapes: Mapping[str, tuple[int, int]], name: str) -> tuple[int, int]:
    """Return (n, d), the shape of the vectors of one name.

    Raises:
        ModelError: there are no matrices of this name.
    """
    if name not in shapes:
        raise ModelError(f"{name}: expected a splittable group, one of {', '.join(shapes)}")
    return shapes[name]


def shares_of(op: Operator) -> Tensor:
    """Return the share of the samples that every fold has, (folds,), sum 1."""
    samples = torch.tensor([fold.samples for fold in op.folds], dtype=op.dtype, device=op.device)
    return samples / samples.sum()


def finite(products: Tensor, name: str) -> Tensor:
    """Return products of the matrices of one name, of any shape.

    Raises:
        ModelError: some of them are not finite.
    """
    if not products.isfinite().all():
        raise ModelError(f"{name}: expected finite splitting matrices, got infinity or NaN; has training diverged?")
    return products


def dense_by_products(op: Minibatch, name: str, like: Tensor) -> Tensor:
    """Return the matrices of one name, (n, d, d), from d products; `like` is a tensor of the vectors' shape."""
    width, d = like.shape
    identity = torch.eye(d, dtype=like.dtype, device=like.device)
    return torch.stack([op.matvec({name: row.expand(width, d)})[name] for row in identity], dim=-1)


def to_scipy(op: Operator, name: str, neuron: int) -> Any:
    """Return the matrix of one neuron as a `scipy.sparse.linalg.LinearOperator` of shape (d, d).

    Raises:
        ConfigError: there is no such neuron.
        ModelError: there is no such group, or it cannot be split.
    """
    width, d = shape_of(op.shapes, name)
    if neuron not in range(width):
        raise ConfigError(f"neuron: expected a number from 0 to {width - 1}, got {neuron!r}")

    def product(vector: Any) -> Any:
        vectors = torch.zeros(width, d, dtype=op.dtype, device=op.device)
        vectors[neuron] = torch.as_tensor(vector).flatten().to(vectors)
        return op.matvec({name: vectors})[name][neuron].cpu().numpy()

    dtype = torch.empty(0, dtype=op.dtype).numpy().dtype
    return scipy.sparse.linalg.LinearOperator((d, d), matvec=product, rmatvec=product, dtype=dtype)
