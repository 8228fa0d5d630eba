"""Algorithm 1 of the paper in one process: the only file that knows the whole order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

from torch import nn

from nni_s3d.errors import ConfigError
from nni_s3d.growth.curvature.batch import Batch, LossFn
from nni_s3d.growth.graph.cost import Cost, count
from nni_s3d.growth.growth_step import Decision, check_growth, decide
from nni_s3d.growth.modules import evaluation_mode
from nni_s3d.growth.seeds import seed_for
from nni_s3d.growth.selection.settings import Policy, is_number, require
from nni_s3d.growth.settings import GrowthSettings
from nni_s3d.growth.surgery.shrink_and_perturb import shrink_and_perturb
from nni_s3d.growth.surgery.split import split
from nni_s3d.growth.trace import trace


@dataclass(frozen=True, eq=False)
class GrowthStep:
    """One network of a run, trained."""

    step: int  # 0 is the seed network
    model: nn.Module
    widths: dict[str, int]
    cost: Cost
    trained: Any  # what `train` returned
    decision: Decision | None  # how it grows from here; None after the last step


def grow(
    model: nn.Module,
    example_inputs: object,
    train: Callable[[nn.Module], Any],
    batches: Collection[Batch] = (),
    loss_fn: LossFn | None = None,
    policy: Policy | None = None,
    steps: int = 5,
    *,
    memory: float | None = None,
    seed: int = 0,
    **settings: Any,
) -> Iterator[GrowthStep]:
    """Alternate parametric phases and growth steps (Algorithm 1), and yield every trained network as it comes.

    Args:
        model: the seed network. It is trained in place; every later network is a new object.
        example_inputs: what `trace` runs the model on.
        train: the parametric phase; trains the network that it is given, in place.
        batches: pairs (inputs, targets) on which the splitting matrices are averaged: some thousand samples in random
            order. Only method "split" needs them.
        loss_fn: loss_fn(outputs, targets) -> scalar, the mean over a batch. Only method "split" needs it.
        policy: which neurons are split; by default a knapsack that lets the MACs grow by 0.6.
        steps: growth steps at most; fewer when no gain is left or a limit is reached.
        memory: bytes that linearised batches may take up, about; None for any number.
        seed: of new neurons and random splits.
        **settings: the fields of `GrowthSettings`: method, copies, c, epsilon, max_params, ...

    Raises:
        ConfigError: a setting is out of range, or `batches` is empty or can be read only once.
        ModelError: the network cannot be traced, or nothing in it can be split.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> inputs = torch.randn(64, 4)
        >>> targets = inputs.sum(dim=1, keepdim=True).tanh()
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
        >>> def train(model):
        ...     optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        ...     for _ in range(20):
        ...         optimizer.zero_grad()
        ...         torch.nn.functional.mse_loss(model(inputs), targets).backward()
        ...         optimizer.step()
        >>> batches = [(inputs[:32], targets[:32]), (inputs[32:], targets[32:])]
        >>> run = s3d.grow(model, inputs, train, batches, torch.nn.functional.mse_loss, steps=2)
        >>> [step.widths["0"] for step in run]
        [2, 3, 4]
    """
    _check_run(steps, seed, memory)
    if policy is not None:
        settings["policy"] = policy
    growth = GrowthSettings(**settings)
    if growth.method == "split":
        _check_batches(batches, loss_fn)
    graph = trace(model, example_inputs)
    if steps:
        check_growth(growth.at(0), graph)
    for step in range(steps + 1):
        trained = train(model)
        decision = None
        if step < steps:
            with evaluation_mode(model):
                seed_of_step = seed_for(seed, step)
                decision = decide(model, graph, growth.at(step), batches, loss_fn, memory=memory, seed=seed_of_step)
        yield GrowthStep(step, model, graph.widths, count(graph), trained, decision)
        if decision is None or decision.plan is None:
            return
        result = split(model, graph, decision.plan, growth.epsilon)
        model, graph = result.model, result.graph
        shrink_and_perturb(
            model, growth.shrink, growth.perturb, seed_for(seed, step, 1)
        )  # not the noise of new neurons


def _check_run(steps: object, seed: object, memory: object) -> None:
    whole = [isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in (steps, seed)]
    require(whole[0], "steps", "a whole number >= 0", steps)
    require(whole[1] and seed < 2**62, "seed", "a whole number >= 0 and < 2**62", seed)  # type: ignore[operator]
    fits = memory is None or (is_number(memory) and memory >= 0)  # type: ignore[operator]
    require(fits, "memory", "a number of bytes or None", memory)


def _check_batches(batches: object, loss_fn: object) -> None:
    """Refuse batches that cannot be read again and again, and no loss."""
    if isinstance(batches, Iterator) or not isinstance(batches, Iterable):
        shown = "an iterator" if isinstance(batches, Iterator) else repr(batches)
        raise ConfigError(f"batches: expected a collection that every growth step can read again, got {shown}")
    if isinstance(batches, Sized) and not len(batches):
        raise ConfigError("batches: expected at least one, got none")
    if not callable(loss_fn):
        raise ConfigError(f"loss_fn: expected loss_fn(outputs, targets), got {loss_fn!r}")
