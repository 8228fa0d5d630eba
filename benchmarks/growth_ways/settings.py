"""What is compared: workloads, methods, and the rows that runs leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nni_s3d.tasks.task import digest


@dataclass(frozen=True)
class Workload:
    """A data set with a backbone, and how long it is trained at every size."""

    data: str
    model: str  # a function of nni_s3d.models
    image_size: int
    widths: list[int]  # of the seed network
    epochs: int  # of the seed network; larger ones are trained for as many MACs
    batch_size: int = 128
    samples: int | None = None
    pad: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Method:
    """How networks of all sizes come about; what growing shares with the package has its names and defaults."""

    kind: str = "grow"  # or one of `growth_ways.KINDS`
    shares: list[float] = field(default_factory=list)  # of the total cost, one of each size; those of the reference

    method: str = "split"  # or "new_neurons", or "random" splits; all of them per MAC, into two copies
    c: float = 1.3
    epsilon: float = 0.5  # in units of |theta|
    shrink: float = 0.5
    perturb: float = 0.1
    pool: dict[str, dict[str, Any]] = field(default_factory=dict)  # of a tournament: {kind: fields that differ for it}
    lengths: list[float] = field(default_factory=list)  # of its splits, by chance one of these, in units of epsilon

    importance: str = ""  # for "prune": that of `s3d.importance`
    widths_of: str = ""  # for "scratch": the method whose widths are taken; even multiples of the seed's if empty
    even: bool = False  # with `widths_of`: even multiples of the seed's that have as many MACs as these widths
    spread: str = "macs"  # for "scratch": "epochs" trains all sizes equally long, "last" only the largest one


@dataclass(frozen=True)
class Study:
    """The content of the config."""

    seeds: list[int]
    rates: list[float]
    sizes: list[float]
    reference: str
    works: dict[str, Any]
    methods: dict[str, Any]

    def digest(self, work: str, method: str) -> str:
        """Return a hash of all settings that the result of a method on a work depends on."""
        settings = {"work": self.works[work], "method": self.methods[method], "sizes": self.sizes}
        if method != self.reference:
            others = {self.reference, self.methods[method].get("widths_of", self.reference)}
            settings |= {"others": {name: self.methods[name] for name in sorted(others)}, "rates": self.rates}
        return digest(settings)


@dataclass(frozen=True)
class Run:
    """One method on one work with one learning rate and seed; what a row begins with."""

    work: str
    method: str
    rate: float
    seed: int
    settings: str  # `Study.digest`


@dataclass
class Row:
    """One trained network."""

    size: int  # number of the size
    params: int
    macs: int
    total_macs: int  # of the run, up to here
    validation: float
    test: float
    test_loss: float
    widths: str  # JSON
    gain: float | None = None  # of the split that this size came from, predicted
    held_out_gain: float | None = None
    loss_before: float | None = None  # on training samples that the spectrum does not come from
    loss_after: float | None = None
    survived: str | None = None  # of a tournament, JSON: {kind of newcomers: [survivors, all]}
    gain_importance: float | None = None  # rank correlation of predicted gain and importance, among splits
