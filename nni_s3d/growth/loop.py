"""Algorithm 1 of the paper in one process: the only file that knows the whole order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.curvature.cut import LossFn
from nni_s3d.growth.curvature.splitting_operator import Batch, SplittingOperator
from nni_s3d.growth.eigen.solve import SOLVERS, spectrum
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import Cost, check_budget, count
from nni_s3d.growth.graph.theta import theta_norms
from nni_s3d.growth.modules import evaluation_mode
from nni_s3d.growth.selection.new_neurons import NewNeurons, new_neurons
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.selection.policies import Knapsack, Policy, TopK, check_policy, select
from nni_s3d.growth.selection.schemes import check_c, check_triplet, copy_choices, is_number
from nni_s3d.growth.surgery.split import SplitResult, split
from nni_s3d.growth.trace import trace

METHODS = ("signed", "new")
_SIGNED = ("c", "triplet", "epsilon", "relative", "solver", "smoothing")  # settings of this method alone
LARGEST = 1e6  # of a length of a split or a smoothness that float32 can still work with


@dataclass(frozen=True)
class GrowthSettings:
    """The hyper-parameters of a growth step.

    The defaults are the recipe of docs/growing_pays.md. The paper's experiments have method "signed" and
    TopFraction(0.35); what follows `copies` is for "signed" alone, but for the limits.
    """

    policy: Policy = field(default_factory=lambda: Knapsack(growth=0.6, cost="macs"))
    method: str = "new"  # new neurons come beside old ones; or "signed": copies move along eigenvectors
    copies: int | Collection[int] = 2
    c: float = 1.3
    triplet: str = "optimal"
    epsilon: float = 0.01
    relative: bool = False  # epsilon in units of each neuron's |theta|
    max_params: int | None = None  # stop before a network gets larger than this
    max_macs: int | None = None
    solver: str = "auto"
    smoothing: float = 3.0

    def __post_init__(self) -> None:
        check_policy(self.policy)
        check_triplet(self.triplet)
        check_c(self.c)
        if len(copy_choices(self.copies)) > 1 and not isinstance(self.policy, Knapsack):
            raise ConfigError(f"copies: a mixed choice needs a knapsack, got {self.copies!r} and {self.policy}")
        limits = (self.max_params, self.max_macs)
        params, macs = (limit is None or (is_number(limit) and limit > 0) for limit in limits)
        most = f"and <= {LARGEST:g}"
        for name, holds, expected in (
            ("epsilon", is_number(self.epsilon) and 0 <= self.epsilon <= LARGEST, f"a number >= 0 {most}"),
            ("smoothing", is_number(self.smoothing) and 0 < self.smoothing <= LARGEST, f"a number > 0 {most}"),
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("solver", self.solver in SOLVERS, f"one of {', '.join(SOLVERS)}"),
            ("relative", isinstance(self.relative, bool), "True or False"),
            ("max_params", params, "a number > 0"),
            ("max_macs", macs, "a number > 0"),
        ):
            if not holds:
                raise ConfigError(f"{name}: expected {expected}, got {getattr(self, name)!r}")
        if self.method == "new":
            self._check_new()

    def _check_new(self) -> None:
        """Refuse settings that would change nothing."""
        if copy_choices(self.copies) != (2,):
            raise ConfigError(f"copies: expected 2, the second a new neuron, or method signed, got {self.copies!r}")
        for name in _SIGNED:
            if (found := getattr(self, name)) != getattr(type(self), name):
                raise ConfigError(f"{name}: expected it with method signed only, got {found!r} with method new")


def check(growth: GrowthSettings, graph: ChannelGraph) -> None:
    """Refuse what would only fail, or end growth, once the network is trained.

    Raises:
        ModelError: nothing in the network can be split.
        ConfigError: the budget or a limit is below what the network costs.
    """
    if not graph.splittable_groups:
        reasons = "; ".join(f"{group.name}: {group.reason}" for group in graph) or "it has no layers with a weight"
        raise ModelError(f"model: expected a layer that can be split, got none ({reasons})")
    if isinstance(growth.policy, Knapsack):
        growth.policy.allowed(graph)
    if growth.max_macs is not None:
        check_budget(graph, "macs", "max_macs")
    cost = count(graph)
    for name, size, limit in (
        ("max_params", cost.params, growth.max_params),
        ("max_macs", cost.macs, growth.max_macs),
    ):
        if limit is not None and size > limit:
            raise ConfigError(f"{name}: expected at least {size:,}, what the network has, got {limit:,}")


@dataclass(frozen=True)
class Decision:
    """What follows a parametric phase: a plan to carry out, or the reason to stop."""

    plan: GrowthPlan | None
    stop: str  # empty as long as there is a plan
    evidence: dict[str, Spectrum] | NewNeurons  # what it rests on
    passes: float  # what that has cost, in passes of all its samples through the network


def decide(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[Batch],
    loss_fn: LossFn | None,
    growth: GrowthSettings,
    max_widths: Mapping[str, int] | None = None,
    memory: float | None = None,
    seed: int = 0,
) -> Decision:
    """Decide how a trained network, in evaluation mode, grows.

    `memory` is that of `SplittingOperator`, `seed` that of `new_neurons`; the other arguments are those of `grow` and
    `select`. New neurons need neither batches nor a loss.
    """
    found: dict[str, Spectrum] | NewNeurons
    if growth.method == "new":
        found, passes, units = new_neurons(model, graph, seed), 0.0, None
    else:
        assert loss_fn is not None
        op = SplittingOperator(model, graph, batches, loss_fn, growth.smoothing, memory)
        found, passes = spectrum(op, growth.solver), op.passes
        units = theta_norms(graph.splittable_groups, dict(model.named_parameters())) if growth.relative else None
    plan = select(found, graph, growth.policy, growth.copies, growth.c, growth.triplet, max_widths, units)
    if not plan.neurons:
        return Decision(None, _why_nothing(found, graph, growth), found, passes)
    for name, size, limit in (
        ("params", plan.params, growth.max_params),
        ("macs", plan.macs, growth.max_macs),
    ):
        if limit is not None and size > limit:
            stop = f"the next network would have {size:,} {name}, above max_{name} = {limit:,}"
            return Decision(None, stop, found, passes)
    return Decision(plan, "", found, passes)


def _why_nothing(found: dict[str, Spectrum] | NewNeurons, graph: ChannelGraph, growth: GrowthSettings) -> str:
    """Return why the policy has chosen nothing."""
    if select(found, graph, growth.policy, growth.copies, growth.c, growth.triplet).neurons:
        return "all widths that could gain are at their caps"
    largest = max(copy_choices(growth.copies))
    if select(found, graph, TopK(1), largest, growth.c, growth.triplet).neurons:
        return "the policy chooses none of the neurons that could gain"
    return "no gain left"


def carry_out(
    model: nn.Module, graph: ChannelGraph, plan: GrowthPlan, growth: GrowthSettings, optimizer: Any = None
) -> SplitResult:
    """Split the model as planned."""
    return split(model, graph, plan, growth.epsilon, optimizer, growth.relative)


def _check_batches(batches: object, loss_fn: object) -> None:
    """Refuse what splitting matrices cannot be measured on, again and again."""
    if isinstance(batches, Iterator) or not isinstance(batches, Iterable):
        found = "an iterator" if isinstance(batches, Iterator) else repr(batches)
        raise ConfigError(f"batches: expected a collection that every growth step can read again, got {found}")
    if isinstance(batches, Sized) and not len(batches):
        raise ConfigError("batches: expected at least one, got none")
    if not callable(loss_fn):
        raise ConfigError(f"loss_fn: expected loss_fn(outputs, targets), got {loss_fn!r}")


@dataclass(frozen=True)
class GrowthStep:
    """One network of a run, trained."""

    step: int  # 0 is the seed
    model: nn.Module
    widths: dict[str, int]
    cost: Cost
    trained: Any  # what `train` returned
    decision: Decision | None  # how it grows from here; None after the last step


def grow(
    model: nn.Module,
    example_inputs: object,
    train: Callable[[nn.Module], Any],
    steps: int,
    batches: Collection[Batch] = (),
    loss_fn: LossFn | None = None,
    memory: float | None = None,
    seed: int = 0,
    **settings: Any,
) -> Iterator[GrowthStep]:
    """Alternate parametric phases and growth steps, and yield every trained network as it comes.

    Args:
        model: the seed network. It is trained in place; every later network is a new object.
        example_inputs: what `trace` runs the model on.
        train: the parametric phase; trains the network that it is given, in place.
        steps: growth steps at most; fewer when no gain is left or a limit is reached.
        batches: for method "signed", pairs (inputs, targets) on which the splitting matrices are averaged.
        loss_fn: for method "signed", loss_fn(outputs, targets) -> scalar, the mean over a batch.
        memory: bytes that linearised batches may take up, about; None for any number.
        seed: of new neurons.
        **settings: the fields of `GrowthSettings`: policy, method, copies, c, epsilon, max_params, ...

    Raises:
        ConfigError: a setting is out of range, or `batches` is empty or can be read only once.
        ModelError: the network cannot be traced, or nothing in it can be split.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"steps: expected a whole number >= 0, got {steps!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**62:
        raise ConfigError(f"seed: expected a whole number >= 0 and < 2**62, got {seed!r}")
    if memory is not None and not (is_number(memory) and memory >= 0):
        raise ConfigError(f"memory: expected a number of bytes or None, got {memory!r}")
    growth = GrowthSettings(**settings)
    if growth.method == "signed":
        _check_batches(batches, loss_fn)
    graph = trace(model, example_inputs)
    if steps:
        check(growth, graph)
    for step in range(steps + 1):
        trained = train(model)
        decision = None
        if step < steps:
            with evaluation_mode(model):
                decision = decide(model, graph, batches, loss_fn, growth, memory=memory, seed=seed + step)
        yield GrowthStep(step, model, graph.widths, count(graph), trained, decision)
        if decision is None or decision.plan is None:
            return
        result = carry_out(model, graph, decision.plan, growth)
        model, graph = result.model, result.graph
