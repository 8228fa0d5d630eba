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
    """How networks of all sizes come about; the fields from `method` on are those of growing."""

    kind: str = "grow"  # or one of `growth_ways.KINDS`
    schedule: str = "cosine"  # of every phase; "trunk": a constant rate, and a branch at every size, see `schedules`
    branch: float = 0.15  # of "trunk": share of a phase in which the rate falls to 0
    shares: list[float] = field(default_factory=list)  # of the total cost, one of each size; those of the reference
    weight_decay: float = 1e-4
    samples: int = 512  # behind a spectrum, slopes, or an importance

    importance: str = ""  # for "prune": that of `s3d.importance`
    first: float = 0.5  # for "prune": share of all MACs that the largest size gets; the others share the rest
    widths_of: str = ""  # for "scratch": the method whose widths are taken; even multiples of the seed's if empty
    even: bool = False  # with `widths_of`: even multiples of the seed's that have as many MACs as these widths
    spread: str = "macs"  # "epochs" trains all sizes equally long; for "scratch", "last" trains only the largest one
    tuner: str = ""  # for "search": "random" or "tpe"

    method: str = "new"  # new neurons; or "signed": signed splits; "random": random directions, equal output weights
    cost: str = "macs"  # neurons are chosen by the gain per what this counts
    neurons: str = "gain"  # of "new": by chance; or "random" gains, or "any": in random order, or "slope": see `slopes`
    draws: int = 1  # of new neurons; those are taken that have the largest slopes
    c: float = 1.3
    copies: int | list[int] = 2
    epsilon: float = 0.05
    relative: bool = True
    spectrum_of: str = "trunk"  # with the schedule "trunk": the network that is measured; or its cooled "branch"
    products: int = 8  # for a spectrum, at most
    steps: int = 1  # growth steps from one size to the next, which share its phase
    later_rate: float = 1.0  # learning rate after the first phase, in units of that of the first
    warmup: float = 0.0  # epochs at the beginning of these later phases
    carry: bool = False  # the state of the optimizer through growth steps, as a trunk does; else phases begin afresh

    # What is done to a network that has grown, see `cures`.
    recalibrate: bool = False
    shrink: float = 1.0
    perturb: float = 0.0
    quicken: bool = False
    ratio: float = 1.0  # of the output weights of a positive split in two

    # A tournament, see `tournament`; none without a pool.
    pool: dict[str, dict[str, Any]] = field(default_factory=dict)  # {kind of newcomers: fields that differ for it}
    excess: float = 1.5  # how much the pool grows the network, in units of the increment to the next size
    trial: float = 0.25  # share of the phase after which newcomers are judged
    trial_steps: int = 128  # but not earlier than after so many steps
    lengths: list[float] = field(default_factory=list)  # of splits, by chance one of these, in units of epsilon
    judge: str = "taylor"  # or "random"
    at_risk: str = "newcomers"  # or "all" neurons
    alike: float = 0.9  # cosine of two copies that have not parted


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
