"""The ways to networks of several sizes that growth_pays.py compares: growing, training anew, searching, pruning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import nni_s3d as s3d
from nni_s3d import models
from nni_s3d.config import build
from nni_s3d.growth.eigen.lanczos import lanczos
from nni_s3d.growth.graph.channels import Role
from nni_s3d.growth.graph.cost import marginal_cost
from nni_s3d.growth.graph.theta import dimension, theta_norms
from nni_s3d.tasks.data import DataSet, Loader, load
from nni_s3d.tasks.task import digest
from nni_s3d.tasks.training import Hooks, Recipe, evaluate, train


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

    kind: str = "grow"  # or "scratch" (trained anew), "search" (proposed by a tuner of NNI and trained anew), "prune"
    importance: str = ""  # for "prune": that of `s3d.importance`
    first: float = 0.5  # for "prune": share of all MACs that the largest size gets; the others share the rest
    widths_of: str = ""  # for "scratch": the method whose widths are taken; even multiples of the seed's if empty
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
    recalibrate: bool = False  # see the function of this name
    steps: int = 1  # growth steps from one size to the next, which share its phase
    later_rate: float = 1.0  # learning rate after the first phase, in units of that of the first
    warmup: float = 0.0  # epochs at the beginning of these later phases
    carry: bool = False  # the state of the optimizer through growth steps; else every phase begins with a fresh one
    weight_decay: float = 1e-4
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
    optimizer: Optimizer | None = None  # of the last phase

    def __post_init__(self) -> None:
        self.work = build(Workload, self.study.works[self.run.work], self.run.work)
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

    def phase(
        self, model: nn.Module, graph: s3d.ChannelGraph, size: int, epochs: int, state: dict[str, Any] | None = None
    ) -> Row:
        """Train a network, with the state of an optimizer to begin with perhaps, and measure it."""
        work, rate, warmup = self.work, self.run.rate, 0.0
        if size:
            rate, warmup = rate * self.method.later_rate, min(self.method.warmup, epochs / 2)
        recipe = Recipe(
            epochs,
            work.batch_size,
            lr=rate,
            warmup_epochs=warmup,
            weight_decay=self.method.weight_decay,
            amp=False,
        )
        seed = self.run.seed + 1_000_003 * size
        loader = Loader(self.data.train, self.data.mean, self.data.std, work.batch_size, seed, work.pad, work.flip)
        hooks = Hooks() if state is None else Hooks(load=partial(beginning, model, state, recipe))
        self.optimizer = train(model, loader, recipe, self.run.seed, hooks)
        cost = s3d.count(graph)
        self.spent += 3 * cost.macs * len(self.data.train) * epochs
        validation, test = (self.measure(model, part) for part in (self.data.validation, self.data.test))
        widths = json.dumps(graph.widths)
        return Row(size, cost.params, cost.macs, self.spent, validation.accuracy, test.accuracy, test.loss, widths)

    def measure(self, model: nn.Module, images: Any) -> Any:
        return evaluate(model, Loader(images, self.data.mean, self.data.std, 512))


def beginning(model: nn.Module, state: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return the checkpoint of a phase that has not begun, with this state of the optimizer."""
    fresh = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    schedule = torch.optim.lr_scheduler.LambdaLR(fresh, lambda step: 1.0).state_dict()
    groups = [group | {"lr": recipe.lr, "initial_lr": recipe.lr} for group in state["param_groups"]]
    optimizer = state | {"param_groups": groups}
    return {"epoch": 0, "model": model.state_dict(), "optimizer": optimizer, "scheduler": schedule, "scaler": {}}


def grown(bench: Bench) -> Iterator[Row]:
    """Grow from size to size."""
    method, split, state = bench.method, dict[str, Any](), None
    behind, beside = samples(bench)
    model = bench.build(bench.work.widths)
    graph = bench.graph(model)
    for number, (size, limit, share) in enumerate(stages(bench)):
        if limit is not None:
            plan, result = grow(bench, model, graph, behind, number - 1, limit)
            losses = [bench.measure(m, beside).loss for m in (model, result.model)]
            split = {"gain": plan.gain, "held_out_gain": plan.held_out_gain}
            split |= {"loss_before": losses[0], "loss_after": losses[1]}
            model, graph, state = result.model, result.graph, result.optimizer_state
        if method.spread == "epochs":  # as if it had the widths of the reference
            epochs = bench.epochs(bench.budgets[-1], *(bench.graph(bench.build(widths)) for widths in bench.widths))
        elif bench.budgets:
            before = bench.budgets[size - 1] if size else 0
            epochs = bench.epochs(before + round(share * (bench.budgets[size] - before)) - bench.spent, graph)
        else:
            epochs = bench.own_epochs(graph)
        yield replace(bench.phase(model, graph, size, epochs, state), **split)


def samples(bench: Bench) -> tuple[Any, Any]:
    """Return the images behind what is measured, and others that it never sees."""
    n = len(bench.data.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(bench.run.seed))
    return bench.data.train[order[: bench.method.samples]], bench.data.train[order[-min(n, 2048) :]]


def stages(bench: Bench) -> Iterator[tuple[int, int | None, float]]:
    """Yield size, parameters to grow to before training (None for the seed) and the share of the phase by its end."""
    yield 0, None, 1.0
    steps = bench.method.steps
    for size, (low, high) in enumerate(pairwise(bench.limits), 1):
        for step in range(1, steps + 1):
            yield size, math.floor(low * (high / low) ** (step / steps)) if step < steps else high, step / steps


def grow(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, images: Any, number: int, limit: int
) -> tuple[s3d.GrowthPlan, s3d.SplitResult]:
    """Grow a trained network to a number of parameters; `number` is that of the growth step."""
    method = bench.method
    model.eval()
    found = measured(bench, model, graph, images, number)
    units = theta_norms(graph.splittable_groups, dict(model.named_parameters())) if method.relative else None
    choice = partial(s3d.select, found, graph, copies=_set(method.copies), c=method.c, theta_norms=units)
    plan = best_draw(bench, model, graph, images, largest(choice, method.cost, limit))
    optimizer = bench.optimizer if method.carry else None
    result = s3d.split(model, graph, plan, method.epsilon, optimizer)
    if method.recalibrate:
        recalibrate(result.model, next(iter(Loader(images, bench.data.mean, bench.data.std, len(images))))[0])
        bench.spent += s3d.count(result.graph).macs * len(images)
    return plan, result


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
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, images: Any, number: int
) -> dict[str, s3d.Spectrum] | s3d.NewNeurons:
    """Return what growth rests on: a spectrum, new neurons, or what stands for it where something is drawn."""
    method, generator = bench.method, torch.Generator().manual_seed(97 * bench.run.seed + number)
    chance = {g.name: torch.rand(g.width, generator=generator) + 1e-3 for g in graph.splittable_groups}
    if method.neurons == "any":  # gains in proportion to prices leave the order to chance
        prices = marginal_cost(graph, method.cost).float()
        chance = {g.name: chance[g.name] * prices[g.channels] for g in graph.splittable_groups}
    if method.method == "new":
        drawn = s3d.new_neurons(model, graph, 1000 * bench.run.seed + number)
        if method.neurons == "slope":
            beside_each = {g.name: torch.full((g.width,), 2) for g in graph.splittable_groups}
            found = slopes(bench, model, graph, s3d.plan_from_copies(graph, beside_each, drawn), images)
            units = theta_norms(graph.splittable_groups, dict(model.named_parameters()))
            return replace(drawn, priorities={name: slope * units[name] ** 2 for name, slope in found.items()})
        return replace(drawn, priorities=chance) if method.neurons == "any" else drawn
    if method.method == "random":
        shapes = {group.name: (group.width, dimension(group, graph.shapes)) for group in graph.splittable_groups}
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
    squares = torch.zeros(grown.graph.num_channels + 1)  # the last for slots of no channel
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
        yield bench.phase(built[size], graphs[size], size, epochs)


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
            row = bench.phase(model, graph, size, bench.own_epochs(graph))
            accuracy = row.validation
            yield row
        tuner.receive_trial_result(number, proposed, accuracy)
        number += 1


def pruned(bench: Bench) -> Iterator[Row]:
    """Train a network of the largest size, cut it to every smaller size, the larger ones first, and train what is left.

    What a cut rests on is measured once, on the network of the largest size.
    """
    total, largest_size = bench.budgets[-1], len(bench.limits) - 1
    model = bench.build(even(bench, bench.limits[-1]))
    graph = bench.graph(model)
    yield bench.phase(model, graph, largest_size, bench.epochs(round(bench.method.first * total), graph))
    images, _ = samples(bench)
    scores = s3d.importance(
        model, graph, bench.method.importance, Loader(images, bench.data.mean, bench.data.std, 16), F.cross_entropy
    )
    if bench.method.importance == "taylor":
        bench.spent += 3 * s3d.count(graph).macs * len(images)
    for size in reversed(range(largest_size)):
        result = s3d.remove(model, graph, least_cut(bench, scores, graph, bench.limits[size]))
        epochs = bench.epochs((total - bench.spent) // (size + 1), result.graph)
        yield bench.phase(result.model, result.graph, size, epochs)


def least_cut(bench: Bench, scores: dict[str, Tensor], graph: s3d.ChannelGraph, params: int) -> dict[str, Tensor]:
    """Return the neurons that stay at the largest budget, in any cost, that does not exceed a number of parameters."""
    cost = bench.method.cost
    if cost == "params":
        return s3d.select_keep(scores, graph, params, cost)
    low, high = 0.0, float(getattr(s3d.count(graph), cost))
    best = None
    for _ in range(24):
        middle = (low + high) / 2
        try:
            keep = s3d.select_keep(scores, graph, middle, cost)
        except s3d.ConfigError:  # less than the smallest widths cost
            low = middle
            continue
        if s3d.count(graph, graph.per_channel(keep)).params <= params:
            low, best = middle, keep
        else:
            high = middle
    assert best is not None, f"expected widths of {params} parameters, got none"
    return best


KINDS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "grow": grown,
    "scratch": scratch,
    "search": searched,
    "prune": pruned,
}


def carry_out(bench: Bench) -> list[dict[str, object]]:
    """Carry one run out, in a process of its own with one thread: two small networks side by side are faster."""
    torch.set_num_threads(1)
    return [asdict(bench.run) | asdict(row) for row in KINDS[bench.method.kind](bench)]
