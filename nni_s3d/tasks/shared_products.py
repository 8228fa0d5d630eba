"""Splitting matrices over samples that the processes of torchrun share: each has its part of every batch.

The first process solves for eigenvectors. For every product it sends the vectors, all multiply them with the matrices
of their own samples, and the first gets the sum.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_s3d.errors import ModelError
from nni_s3d.growth.curvature.batch_operator import Shapes
from nni_s3d.growth.curvature.mean_operator import MeanOperator
from nni_s3d.growth.curvature.splitting_operator import SplittingOperator
from nni_s3d.growth.eigen.held_out import fold_ends
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.trace import trace
from nni_s3d.tasks import ranks
from nni_s3d.tasks.data import DataSet, Loader
from nni_s3d.tasks.task import Task

_logger = logging.getLogger(__name__)


class SharedOperator:
    """v -> S v averaged over samples of which every process has a share; see `Operator` for its attributes.

    Args:
        own: the operator of the samples that the first process has.
        sizes: of some batches that follow each other, in all processes together.
        first: the number of the first of them.
    """

    def __init__(self, own: MeanOperator, sizes: Sequence[int], first: int = 0) -> None:
        self._own, self._sizes = own, sizes
        self._batches = first, first + len(sizes)
        self.shapes, self.dtype, self.device = own.shapes, own.dtype, own.device
        self.samples = sum(sizes)

    @property
    def folds(self) -> list[SharedOperator]:
        """Operators over the same samples as the folds of one process."""
        return self._cut(fold_ends(len(self._sizes)))

    @property
    def parts(self) -> list[SharedOperator]:
        """One operator per batch."""
        return self._cut(range(len(self._sizes) + 1))

    @property
    def passes(self) -> float:
        """What the first process has computed so far, in passes of its samples: about as many as the others."""
        return self._own.passes

    def _cut(self, ends: Sequence[int]) -> list[SharedOperator]:
        return [SharedOperator(self._own, self._sizes[a:b], self._batches[0] + a) for a, b in pairwise(ends)]

    def matvec(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return S v for the groups in `vectors`, each (width, d), one vector per neuron."""
        ranks.from_first({"matvec": list(vectors), "batches": list(self._batches)})
        total = _sum_of_products(self._own, self._batches, vectors)
        return {name: product.div_(self.samples) for name, product in total.items()}

    def dense(self, name: str) -> Tensor:
        """Return the splitting matrices of one group, shape (width, d, d)."""
        ranks.from_first({"dense": name, "batches": list(self._batches)})
        return _sum_of_matrices(self._own, self._batches, name).div_(self.samples)


def _sum_of_products(own: MeanOperator, batches: Sequence[int], vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, in the first process, the sum over all samples of S v for the vectors that it gives."""
    given = ranks.broadcast(torch.cat([vector.to(own.dtype).flatten() for vector in vectors.values()]))
    vectors = _unpacked(given, own.shapes, list(vectors))
    products = {name: torch.zeros_like(vector) for name, vector in vectors.items()}
    for part in own.parts[slice(*batches)]:  # none if the last batch has no sample for this process
        for name, product in part.matvec(vectors).items():
            products[name].add_(product, alpha=part.samples)
    total = ranks.add_up(torch.cat([product.flatten() for product in products.values()]))
    return _unpacked(total, own.shapes, list(vectors))


def _sum_of_matrices(own: MeanOperator, batches: Sequence[int], name: str) -> Tensor:
    """Return, in the first process, the sum over all samples of the matrices of one group."""
    width, d = own.shapes[name]
    total = torch.zeros(width, d, d, dtype=own.dtype, device=own.device)
    for part in own.parts[slice(*batches)]:
        total.add_(part.dense(name), alpha=part.samples)
    return ranks.add_up(total)


def _unpacked(flat: Tensor, shapes: Shapes, names: Sequence[str]) -> dict[str, Tensor]:
    sizes = [shapes[name][0] * shapes[name][1] for name in names]
    return {name: part.view(shapes[name]) for name, part in zip(names, flat.split(sizes), strict=True)}


@contextmanager
def splitting_operator(
    task: Task,
    data: DataSet,
    model: nn.Module,
    graph: ChannelGraph,
    widths: Mapping[str, int],
    smoothing: float,
    seed: int,
) -> Iterator[SplittingOperator | SharedOperator]:
    """Yield the operator of a network on some training samples, with the help of the other processes if there are any.

    Args:
        task: says which samples, and how much memory they may take in each process.
        data: of the task.
        model: the network, in evaluation mode.
        graph: its channel graph.
        widths: those from which the task makes it.
        smoothing: see `SplittingOperator`.
        seed: of the network, and of the choice of the samples.
    """
    loader = task.curvature_loader(data, seed)
    samples, batch, processes = len(loader.images), loader.batch_size, ranks.world_size()
    sizes = [min(batch, samples - start) for start in range(0, samples, batch)]
    if sizes[0] < processes:
        _logger.info("the first process works alone: %d processes cannot share batches of %d", processes, sizes[0])
    if processes == 1 or sizes[0] < processes:
        yield SplittingOperator(model, graph, loader, F.cross_entropy, smoothing, task.curvature.memory * 2**30)
        return
    job = {"widths": dict(widths), "groups": sorted(graph.widths), "smoothing": smoothing, "seed": seed}
    ranks.from_first({"multiply": job | {"weights": model.state_dict()}})
    yield SharedOperator(_own(task, loader, model, graph, smoothing), sizes)
    ranks.from_first({})


def _own(task: Task, loader: Loader, model: nn.Module, graph: ChannelGraph, smoothing: float) -> SplittingOperator:
    """Return the operator of the samples that this process has."""
    rank, samples = ranks.rank(), len(loader.images)
    rest = samples % loader.batch_size
    if 0 < rest <= rank:  # the last batch has nothing for this process
        loader = replace(loader, images=loader.images[torch.arange(samples - rest)])
    mine = replace(loader, share=(rank, ranks.world_size()))
    return SplittingOperator(model, graph, mine, F.cross_entropy, smoothing, task.curvature.memory * 2**30)


def multiply(task: Task, data: DataSet, job: Mapping[str, Any]) -> None:
    """Take part in the products that the first process asks for, until it asks no more.

    Raises:
        ModelError: the network is another one than that of the first process.
    """
    model = task.build_model(job["widths"], job["seed"], data.shape)
    model.load_state_dict(job["weights"])
    graph = trace(model.eval(), task.example(data.shape)).refuse_others(job["groups"], "the first process does not")
    if sorted(graph.widths) != job["groups"]:
        raise ModelError(f"model: expected to split {job['groups']}, as the first process, got {sorted(graph.widths)}")
    own = _own(task, task.curvature_loader(data, job["seed"]), model, graph, job["smoothing"])
    while asked := ranks.next_word():
        if "dense" in asked:
            _sum_of_matrices(own, asked["batches"], asked["dense"])
            continue
        vectors = {name: torch.empty(own.shapes[name], dtype=own.dtype, device=own.device) for name in asked["matvec"]}
        _sum_of_products(own, asked["batches"], vectors)
