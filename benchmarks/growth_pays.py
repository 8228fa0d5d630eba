"""What growing pays: the accuracy at four sizes, against networks that cost as much in training.

    python benchmarks/growth_pays.py [--config benchmarks/growth_pays.yml] [--csv benchmarks/results/growth_pays.csv]
                                     [--works NAME ...] [--methods NAME ...] [--workers 2] [--json]

A work is a data set and a backbone (NNI_S3D_DATA says where the data sets are). The reference method grows its seed
network to three larger sizes, in parameters, with a phase of some epochs at each. Everybody else is granted what this
has cost in all, in MACs of forward passes, backward passes (twice as many) and what measuring takes, rounded up to
whole epochs. Every method takes the learning rate that is best for it on the validation sets of all seeds. Rows are
appended to the CSV file as runs end, and runs that are there already, with the same settings, are not repeated; with
nothing left to do, this prints the table. "front" is the mean over the sizes; "behind" is the front of the reference
minus that of the method, seed by seed, since growing methods begin with the same trained seed network.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d import models
from nni_s3d.config import build, read_yaml
from nni_s3d.data import DataSet, Loader, load
from nni_s3d.growth.channels import Role
from nni_s3d.growth.cost import marginal
from nni_s3d.growth.lanczos import lanczos
from nni_s3d.growth.layout import dimension, lengths
from nni_s3d.task import digest
from nni_s3d.training import Recipe, evaluate, train


@dataclass(frozen=True)
class Work:
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

    kind: str = "grow"  # or "scratch" (trained anew), "search" (proposed by a tuner of NNI and trained anew)
    widths_of: str = ""  # for "scratch": the method whose widths are taken; even multiples of the seed's if empty
    spread: str = "macs"  # "epochs" trains all sizes equally long; for "scratch", "last" trains only the largest one
    tuner: str = ""  # for "search": "random" or "tpe"
    method: str = "new"  # "new" and "signed" as in `nni_s3d.Growth`; "random": directions, with equal output weights
    cost: str = "macs"  # neurons are chosen by the gain per what this counts
    neurons: str = "gain"  # of "new": by chance; or "random" gains, or "any": in random order, or "slope": see `slopes`
    draws: int = 1  # of new neurons; those are taken that have the largest slopes
    c: float = 1.3
    copies: int | list[int] = 2
    epsilon: float = 0.05
    relative: bool = True
    recalibrate: bool = False  # see the function of this name
    later_rate: float = 1.0  # learning rate after the first phase, in units of that of the first
    samples: int = 512  # behind a spectrum, or slopes
    products: int = 8  # for a spectrum, at most


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


@dataclass
class Bench:
    """Everything that one run works with."""

    study: Study
    run: Run
    budgets: list[int] = field(default_factory=list)  # MACs that the reference has spent by the end of every size
    widths: list[dict[str, int]] = field(default_factory=list)  # of the method that `widths_of` names
    spent: int = 0

    def __post_init__(self) -> None:
        self.work = build(Work, self.study.works[self.run.work], self.run.work)
        self.method = build(Method, self.study.methods[self.run.method], self.run.method)

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

    def epochs(self, budget: int, *graphs: s3d.ChannelGraph) -> int:
        """Return how many epochs of all these networks a budget pays, rounded up, one at least."""
        return max(1, math.ceil(budget / sum(3 * s3d.count(graph).macs * len(self.data.train) for graph in graphs)))

    def own_epochs(self, graph: s3d.ChannelGraph) -> int:
        """Return how long the reference trains a network."""
        seed = s3d.count(self.graph(self.build(self.work.widths)))
        return max(1, round(self.work.epochs * seed.macs / s3d.count(graph).macs))

    def phase(self, model: nn.Module, graph: s3d.ChannelGraph, size: int, epochs: int, rate: float) -> Row:
        """Train a network and measure it."""
        recipe = Recipe(epochs, self.work.batch_size, lr=rate, amp=False)
        seed = self.run.seed + 1_000_003 * size
        loader = Loader(
            self.data.train,
            self.data.mean,
            self.data.std,
            self.work.batch_size,
            seed,
            self.work.pad,
            self.work.flip,
        )
        train(model, loader, recipe, self.run.seed)
        cost = s3d.count(graph)
        self.spent += 3 * cost.macs * len(self.data.train) * epochs
        validation, test = (self.measure(model, part) for part in (self.data.validation, self.data.test))
        widths = json.dumps(graph.widths)
        return Row(size, cost.params, cost.macs, self.spent, validation.accuracy, test.accuracy, test.loss, widths)

    def measure(self, model: nn.Module, images: Any) -> Any:
        return evaluate(model, Loader(images, self.data.mean, self.data.std, 512))


def grown(bench: Bench) -> Iterator[Row]:
    """Grow from size to size."""
    method, n = bench.method, len(bench.data.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(bench.run.seed))
    behind, beside = bench.data.train[order[: method.samples]], bench.data.train[order[-min(n, 2048) :]]
    model = bench.build(bench.work.widths)
    graph, split = bench.graph(model), {}
    for size in range(len(bench.limits)):
        if method.spread == "epochs":  # as if it had the widths of the reference
            epochs = bench.epochs(bench.budgets[-1], *(bench.graph(bench.build(widths)) for widths in bench.widths))
        elif bench.budgets:
            epochs = bench.epochs(bench.budgets[size] - bench.spent, graph)
        else:
            epochs = bench.own_epochs(graph)
        row = bench.phase(model, graph, size, epochs, bench.run.rate * (method.later_rate if size else 1))
        yield replace(row, **split)
        if size + 1 == len(bench.limits):
            return
        model.eval()
        found = measured(bench, model, graph, behind, size)
        units = lengths(graph.splittable, dict(model.named_parameters())) if method.relative else None
        choice = partial(s3d.select, found, graph, copies=_set(method.copies), c=method.c, lengths=units)
        plan = best_draw(bench, model, graph, behind, largest(choice, method.cost, bench.limits[size + 1]))
        result = s3d.split(model, graph, plan, method.epsilon, relative=method.relative)
        if method.recalibrate:
            recalibrate(result.model, next(iter(Loader(behind, bench.data.mean, bench.data.std, len(behind))))[0])
            bench.spent += s3d.count(result.graph).macs * len(behind)
        losses = [bench.measure(m, beside).loss for m in (model, result.model)]
        split = {"gain": plan.gain, "held_out_gain": plan.held_out_gain}
        split |= {"loss_before": losses[0], "loss_after": losses[1]}
        model, graph = result.model, result.graph


def largest(select: Callable[..., s3d.GrowthPlan], cost: str, params: int) -> s3d.GrowthPlan:
    """Return the plan of the largest budget, in any cost, that does not exceed a number of parameters."""
    if cost == "params":
        return select(policy=s3d.Knapsack(budget=params, cost="params"))
    low, high, best = 0.0, 10.0, None
    for _ in range(24):
        middle = (low + high) / 2
        plan = select(policy=s3d.Knapsack(growth=middle, cost=cost))
        if plan.params <= params:
            low, best = middle, plan
        else:
            high = middle
    assert best is not None
    return best


@torch.no_grad()
def recalibrate(model: nn.Module, inputs: Tensor) -> None:
    """Give every batch norm the statistics of what it reads now, and leave the function of the network as it is.

    Copies move along directions that shift the mean of what batch norm reads, above all. In training mode it takes the
    shift away again, and with it the gain, which was computed at fixed statistics; so the affine map takes it over.
    """

    def renew(norm: Any, arguments: tuple[Tensor]) -> None:
        dims = [dim for dim in range(arguments[0].dim()) if dim != 1]
        variance, mean = torch.var_mean(arguments[0], dims, correction=0)
        old, new = (norm.running_var + norm.eps).sqrt(), (variance + norm.eps).sqrt()
        norm.bias += norm.weight * (mean - norm.running_mean) / old
        norm.weight *= new / old
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(renew) for norm in norms]
    model.eval()(inputs)
    for hook in hooks:
        hook.remove()


def measured(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, images: Any, size: int
) -> dict[str, s3d.Spectrum] | s3d.Newcomers:
    """Return what growth rests on: a spectrum, new neurons, or what stands for it where something is drawn."""
    method, generator = bench.method, torch.Generator().manual_seed(97 * bench.run.seed + size)
    chance = {g.name: torch.rand(g.width, generator=generator) + 1e-3 for g in graph.splittable}
    if method.neurons == "any":  # gains in proportion to prices leave the order to chance
        prices = marginal(graph, method.cost).float()
        chance = {g.name: chance[g.name] * prices[g.channels] for g in graph.splittable}
    if method.method == "new":
        drawn = s3d.newcomers(model, graph, 1000 * bench.run.seed + size)
        if method.neurons == "slope":
            beside_each = {g.name: torch.full((g.width,), 2) for g in graph.splittable}
            found = slopes(bench, model, graph, s3d.plan_from_copies(graph, beside_each, drawn), images)
            units = lengths(graph.splittable, dict(model.named_parameters()))
            return replace(drawn, priorities={name: slope * units[name] ** 2 for name, slope in found.items()})
        return replace(drawn, priorities=chance) if method.neurons == "any" else drawn
    if method.method == "random":
        shapes = {group.name: (group.width, dimension(group, graph.shapes)) for group in graph.splittable}
        directions = {n: F.normalize(torch.randn(shape, generator=generator), dim=1) for n, shape in shapes.items()}
        return {name: _drawn(chance[name], directions[name]) for name in shapes}
    batches = list(Loader(images, bench.data.mean, bench.data.std, min(256, len(images) // 2)))
    op = s3d.SplittingOperator(model, graph, batches, F.cross_entropy)
    spectrum = lanczos(op, list(op.shapes), max_steps=method.products)
    bench.spent += round(s3d.count(graph).macs * len(images) * op.passes)
    return spectrum


def slopes(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, plan: s3d.GrowthPlan, images: Any
) -> dict[str, Tensor]:
    """Return how steeply the loss falls with the weights that read new neurons, {group: (new neurons,)}."""
    grown = s3d.split(model, graph, plan)
    inputs, targets = next(iter(Loader(images, bench.data.mean, bench.data.std, len(images))))
    F.cross_entropy(grown.model.train()(inputs), targets).backward()
    bench.spent += 3 * s3d.count(grown.graph).macs * len(images)
    squares = torch.zeros(grown.graph.channels + 1)  # the last for slots of no channel
    parameters = dict(grown.model.named_parameters())
    for axis in grown.graph.axes():
        if axis.role is Role.COLUMN:
            slots = (parameters[axis.tensor].grad ** 2).movedim(axis.dim, 0).flatten(1).sum(1)
            squares.index_add_(0, axis.slots % len(squares), slots)
    new = {name: weights == 0 for name, weights in plan.weights.items()}
    return {name: squares[grown.graph[name].channels][mask].sqrt() for name, mask in new.items()}


def best_draw(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, images: Any, plan: s3d.GrowthPlan
) -> s3d.GrowthPlan:
    """Return the plan with the new neurons of the largest slopes among some draws."""
    if bench.method.draws == 1:
        return plan
    drawn = [replace(plan, seed=(plan.seed or 0) + 10**6 * number) for number in range(bench.method.draws)]
    return max(drawn, key=lambda p: sum(float((s**2).sum()) for s in slopes(bench, model, graph, p, images).values()))


def _drawn(gains: Tensor, directions: Tensor) -> s3d.Spectrum:
    zero = torch.zeros(len(gains))
    return s3d.Spectrum(-gains, directions, zero, directions, zero, zero, zero == 0, 0)


def _set(copies: int | list[int]) -> int | set[int]:
    return copies if isinstance(copies, int) else set(copies)


def scratch(bench: Bench) -> Iterator[Row]:
    """Train networks of every size anew."""
    widths = bench.widths or [even(bench, limit) for limit in bench.limits]
    built = [bench.build(each) for each in widths]
    first = len(built) - 1 if bench.method.spread == "last" else 0
    graphs = [bench.graph(model) for model in built]
    together = bench.epochs(bench.budgets[-1], *graphs[first:])
    for size in range(first, len(built)):
        share = bench.budgets[size] - bench.spent
        epochs = bench.epochs(share, graphs[size]) if bench.method.spread == "macs" else together
        yield bench.phase(built[size], graphs[size], size, epochs, bench.run.rate)


def even(bench: Bench, limit: int) -> dict[str, int]:
    """Return the largest common multiple of the seed's widths that has no more parameters than this."""
    seed = bench.graph(bench.build(bench.work.widths)).widths
    best = seed
    for percent in range(100, 1000):
        widths = {name: round(width * percent / 100) for name, width in seed.items()}
        if sum(parameter.numel() for parameter in bench.build(widths).parameters()) > limit:
            return best
        best = widths
    return best


def searched(bench: Bench) -> Iterator[Row]:
    """Train what a tuner of NNI proposes, as the reference has trained its networks, until everything is spent.

    Widths reach from the seed's to what the largest size would have if it were even, and half as much again. What is
    larger than the largest size is not trained; the tuner is told that its accuracy is 0.
    """
    from nni.algorithms.hpo.random_tuner import RandomTuner
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    low, high = bench.graph(bench.build(bench.work.widths)).widths, even(bench, bench.limits[-1])
    tuner = {"random": RandomTuner, "tpe": TpeTuner}[bench.method.tuner](seed=bench.run.seed)
    tuner.update_search_space(
        {name: {"_type": "quniform", "_value": [low[name], math.ceil(1.5 * high[name]), 1]} for name in low}
    )
    number = 0
    while bench.spent < bench.budgets[-1]:
        proposed = tuner.generate_parameters(number)
        model = bench.build({name: int(width) for name, width in proposed.items()})
        accuracy = 0.0
        params = sum(parameter.numel() for parameter in model.parameters())
        if params <= bench.limits[-1]:
            size = next(size for size, limit in enumerate(bench.limits) if params <= limit)
            graph = bench.graph(model)
            row = bench.phase(model, graph, size, bench.own_epochs(graph), bench.run.rate)
            accuracy = row.validation
            yield row
        tuner.receive_trial_result(number, proposed, accuracy)
        number += 1


KINDS: dict[str, Callable[[Bench], Iterator[Row]]] = {"grow": grown, "scratch": scratch, "search": searched}


def carry_out(bench: Bench) -> list[dict[str, object]]:
    """Carry one run out, in a process of its own with one thread: two small networks side by side are faster."""
    torch.set_num_threads(1)
    return [asdict(bench.run) | asdict(row) for row in KINDS[bench.method.kind](bench)]


@dataclass
class Results:
    """The rows of a CSV file that come from the settings of a study; others are left alone."""

    path: Path
    rows: list[dict[str, str]]

    @classmethod
    def read(cls, path: Path, study: Study) -> Results:
        rows = list(csv.DictReader(path.open())) if path.exists() else []
        current = {study.digest(work, method) for work in study.works for method in study.methods}
        return cls(path, [row for row in rows if row["settings"] in current])

    def add(self, rows: list[dict[str, object]]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)
        self.rows += [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]

    def of(self, **values: object) -> list[dict[str, str]]:
        return [row for row in self.rows if all(row[key] == str(value) for key, value in values.items())]

    def best_rate(self, study: Study, work: str, method: str) -> float | None:
        """Return the learning rate of the best fronts on the validation sets of all seeds; None if it is open."""
        found: dict[float, list[float]] = {rate: [] for rate in study.rates}
        for rate, seed in itertools.product(study.rates, study.seeds):
            rows = self.of(work=work, method=method, rate=rate, seed=seed)
            if not rows:
                return None
            found[rate] += front(rows, len(study.sizes), "validation").values()
        return max(found, key=lambda rate: statistics.mean(found[rate]))


def front(rows: list[dict[str, str]], sizes: int, key: str) -> dict[int, float]:
    """Return the accuracy at every size: of the network that is best on the validation set and no larger."""
    found = {}
    for size in range(sizes):
        smaller = [row for row in rows if int(row["size"]) <= size]
        if smaller:
            found[size] = float(max(smaller, key=lambda row: float(row["validation"]))[key])
    return found


def ready(study: Study, results: Results, works: list[str], methods: list[str]) -> list[Bench]:
    """Return the runs that can be carried out now: nobody has yet, and what they depend on is there."""
    found = []
    for work, method, rate, seed in itertools.product(works, methods, study.rates, study.seeds):
        if not results.of(work=work, method=method, rate=rate, seed=seed):
            bench = prepared(study, results, Run(work, method, rate, seed, study.digest(work, method)))
            found += [bench] if bench else []
    return found


def prepared(study: Study, results: Results, run: Run) -> Bench | None:
    """Return a run with what it must know of others, or None as long as these are missing."""
    bench = Bench(study, run)
    if run.method == study.reference:
        return bench
    needed = [study.reference, bench.method.widths_of or study.reference]
    rates = [results.best_rate(study, run.work, name) for name in needed]
    known = [results.of(work=run.work, method=m, rate=r, seed=run.seed) for m, r in zip(needed, rates, strict=True)]
    if not all(known):
        return None
    bench.budgets = [int(row["total_macs"]) for row in known[0]]
    bench.widths = [json.loads(row["widths"]) for row in known[1]] if bench.method.widths_of else []
    return bench


def fronts(study: Study, results: Results, work: str, method: str, key: str) -> dict[int, dict[int, float]]:
    """Return the fronts of a method at its learning rate, by seed."""
    rate = results.best_rate(study, work, method)
    runs = {seed: results.of(work=work, method=method, rate=rate, seed=seed) for seed in study.seeds}
    return {seed: front(rows, len(study.sizes), key) for seed, rows in runs.items() if rows}


def behind_reference(study: Study, results: Results, work: str, method: str) -> list[float]:
    """Return by how many points a method's front is below that of the reference, seed by seed."""
    own, other = (fronts(study, results, work, name, "test") for name in (method, study.reference))
    both = [seed for seed in own if seed in other and len(own[seed]) == len(other[seed]) == len(study.sizes)]
    return [100 * (statistics.mean(other[s].values()) - statistics.mean(own[s].values())) for s in both]


def table(study: Study, results: Results, works: list[str], methods: list[str]) -> list[dict[str, object]]:
    """Return a row for every work and method: test accuracy in percent at every size, mean and deviation."""
    rows: list[dict[str, object]] = []
    for work, method in itertools.product(works, methods):
        found = list(fronts(study, results, work, method, "test").values())
        if not found:
            continue
        rate = results.best_rate(study, work, method)
        row: dict[str, object] = {"work": work, "method": method, "rate": rate, "seeds": len(found)}
        for size, factor in enumerate(study.sizes):
            row[f"x {factor:g}"] = spread([100 * f[size] for f in found if size in f])
        row["front"] = spread([100 * statistics.mean(f.values()) for f in found if len(f) == len(study.sizes)])
        row["behind"] = spread(behind_reference(study, results, work, method)) if method != study.reference else ""
        rows.append(row)
    return rows


def spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{statistics.mean(values):.1f}" + (f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_pays.yml"))
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/growth_pays.csv"))
    parser.add_argument("--works", nargs="+")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), parsed.config)
    results = Results.read(parsed.csv, study)
    works, methods = parsed.works or list(study.works), parsed.methods or list(study.methods)
    with ProcessPoolExecutor(parsed.workers, get_context("spawn")) as pool:
        while benches := ready(study, results, works, methods):
            futures = {pool.submit(carry_out, bench): bench.run for bench in benches}
            for future in as_completed(futures):
                results.add(future.result())
                print(*asdict(futures[future]).values(), file=sys.stderr, flush=True)
    rows = table(study, results, works, methods)
    if parsed.json:
        print(json.dumps({"rows": rows}))
        return
    for row in [{key: key for key in rows[0]}, *rows] if rows else []:
        print("".join(f"{value!s:>{24 if key in ('work', 'method') else 13}}" for key, value in row.items()))


if __name__ == "__main__":
    main()
