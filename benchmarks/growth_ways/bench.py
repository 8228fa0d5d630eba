"""Everything that one run works with: data, networks, budgets and what has been spent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import nni_s3d as s3d
from growth_ways.settings import Method, Run, Study, Workload
from nni_s3d import models
from nni_s3d.config import build
from nni_s3d.tasks.data import DataSet, Images, Loader, load
from nni_s3d.tasks.training import Evaluation, evaluate

SAMPLES = 512  # behind a spectrum or an importance


@dataclass
class Bench:
    """A run, and what it must know of others."""

    study: Study
    run: Run
    budgets: list[int] = field(default_factory=list)  # MACs that the reference has spent by the end of every size
    widths: list[dict[str, int]] = field(default_factory=list)  # of the method that `widths_of` names
    spent: int = 0

    def __post_init__(self) -> None:
        self.work = build(Workload, self.study.works[self.run.work], self.run.work)
        self.method = build(Method, self.study.methods[self.run.method], self.run.method)
        shares = self.method.shares
        assert not shares or (len(shares) == len(self.study.sizes) and math.isclose(sum(shares), 1)), shares

    @cached_property
    def data(self) -> DataSet:
        return load(self.work.data, 0.1, self.work.samples)

    @cached_property
    def example(self) -> Tensor:
        return torch.randn(1, *self.data.shape, generator=torch.Generator().manual_seed(0))

    @cached_property
    def limits(self) -> list[int]:
        """Parameters of every size at most."""
        seed = sum(parameter.numel() for parameter in self.build(self.work.widths).parameters())
        return [math.floor(seed * size) for size in self.study.sizes]

    def build(self, widths: Any) -> nn.Module:
        torch.manual_seed(self.run.seed)
        return getattr(models, self.work.model)(widths, self.data.num_classes, self.data.shape[0], self.work.image_size)

    def graph(self, model: nn.Module) -> s3d.ChannelGraph:
        return s3d.trace(model, self.example)

    @property
    def total(self) -> int:
        """MACs for all sizes together."""
        return self.budgets[-1]

    def by_the_end(self, size: int) -> int:
        """Return how many MACs may be spent by the end of a size: so many shares, or what the reference has spent."""
        shares = self.method.shares
        return round(self.total * sum(shares[: size + 1])) if shares else self.budgets[size]

    def epochs(self, budget: int, *graphs: s3d.ChannelGraph) -> float:
        """Return how many epochs of all these networks a budget pays."""
        return budget / sum(3 * s3d.count(graph).macs * len(self.data.train) for graph in graphs)

    def own_epochs(self, graph: s3d.ChannelGraph, size: int) -> float:
        """Return how long a growing network is trained at a size: the reference by MACs, all others by what is left."""
        if self.budgets:
            return self.epochs(self.by_the_end(size) - self.spent, graph)
        seed = s3d.count(self.graph(self.build(self.work.widths)))
        return max(1, round(self.work.epochs * seed.macs / s3d.count(graph).macs))

    def loader(self, images: Images, batch_size: int) -> Loader:
        """Return batches of images as they are, in their order."""
        return Loader(images, self.data.mean, self.data.std, batch_size)

    def training_loader(self, size: int, order: int = 0) -> Loader:
        """Return the batches of a phase, in one of several orders."""
        work, seed = self.work, self.run.seed + 1_000_003 * (size + order * len(self.study.sizes))
        return Loader(self.data.train, self.data.mean, self.data.std, work.batch_size, seed, work.pad, work.flip)

    def measure(self, model: nn.Module, images: Images) -> Evaluation:
        return evaluate(model, self.loader(images, 512))

    def samples(self) -> tuple[Images, Images]:
        """Return the training images behind what is measured, and others; those of the digits are too few for both."""
        n = len(self.data.train)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.run.seed))
        return self.data.train[order[:SAMPLES]], self.data.train[order[-min(n, 2048) :]]
