"""Splitting matrices averaged over the samples of several batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from nni_s3d.growth.curvature.batch_operator import Shapes
from nni_s3d.growth.eigen.held_out import fold_ends
from nni_s3d.growth.eigen.operator import shape_of, to_scipy


class PartOperator(Protocol):
    """The operator of one batch."""

    samples: int
    passes: float

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""


class MeanOperator:
    """v -> S v averaged over the samples of several batches.

    Attributes:
        parts: one operator per batch; this operator is their mean, weighted by their samples.
        shapes: {group: (width, d)}, the shapes of the vectors that the operator takes.
        samples: number of samples of all batches together.
        dtype: of the matrices.
        device: where they are.
    """

    def __init__(
        self, parts: Sequence[PartOperator], shapes: Shapes, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.parts, self.shapes = parts, shapes
        self.dtype, self.device = dtype, torch.device(device)
        self.samples = sum(part.samples for part in parts)

    @cached_property
    def folds(self) -> list[MeanOperator]:
        """At most `held_out.FOLDS` operators over disjoint samples, of which this one is the mean too."""
        ends = pairwise(fold_ends(len(self.parts)))
        return [MeanOperator(self.parts[a:b], self.shapes, self.dtype, self.device) for a, b in ends]

    @property
    def passes(self) -> float:
        """What has been computed so far, in passes of all samples through the network."""
        return sum(part.passes * part.samples for part in self.parts) / self.samples

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron.

        Raises:
            ModelError: a group is not there or cannot be split, or the shape of its vectors is another one.
        """
        mean = {name: torch.zeros_like(vector) for name, vector in vectors.items()}
        for part in self.parts:
            for name, product in part.matvec(vectors).items():
                mean[name].add_(product, alpha=part.samples / self.samples)
        return mean

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d).

        Raises:
            ModelError: the group is not there, or cannot be split.
        """
        shape_of(self.shapes, name)
        first, *others = self.parts
        mean = first.dense(name).mul_(first.samples / self.samples)
        for part in others:
            mean.add_(part.dense(name), alpha=part.samples / self.samples)
        return mean

    def to_scipy(self, name: str, neuron: int) -> Any:
        """Return the splitting matrix of one neuron as a `scipy.sparse.linalg.LinearOperator` of shape (d, d).

        SciPy's own solvers can then check those of this package: `eigsh`, `lobpcg`.

        Raises:
            ConfigError: the group has no such neuron.
            ModelError: the group is not there, or cannot be split.
        """
        return to_scipy(self, name, neuron)
