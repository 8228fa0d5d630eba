"""One trial, without NNI: spec -> parametric phase -> plan of the next growth step -> evaluation -> metrics."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional as F

from nni_s3d.config import build
from nni_s3d.errors import ModelError, StoreError, first_line
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import Cost, count
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.loop import Decision, carry_out, decide
from nni_s3d.growth.selection.new_neurons import NewNeurons
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path, trial_path
from nni_s3d.search.preflight import check_network
from nni_s3d.search.spec import Spec, parse_spec
from nni_s3d.search.store import Store
from nni_s3d.tasks.data import DataSet, Loader
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import Task, digest
from nni_s3d.tasks.training import Hooks, Recipe, evaluate, train

_logger = logging.getLogger(__name__)
_FOLLOWING = ("widths", "params", "macs")  # what a plan says of the next spec
_SHOWN = ("default", "test_accuracy", "params", "macs")  # what every reader of a trial's metrics counts on
_INTERMEDIATE_RESULTS = 10  # validation accuracies that a trial reports on its way


@dataclass
class Trial:
    """Everything that one trial works with."""

    task: Task
    space: Space  # of the task
    store: Store
    spec: Spec
    lineage: Lineage | None  # None for the widths of another strategy
    report: Callable[[float], None]  # takes the validation accuracies on the way

    @property
    def seed(self) -> int:
        """Of the weights, the order of the samples, new neurons and the eigensolver."""
        return self.lineage.seed if self.lineage else self.task.seed

    @property
    def seed_of_step(self) -> int:
        """Of what every step of a lineage draws anew."""
        return self.seed + 1_000_003 * self.spec.step

    @property
    def key(self) -> str:
        """Name of the folder of this trial's artefacts: a hash of all that determines them."""
        own = {"widths": self.spec.widths, "step": self.spec.step, "parent": self.spec.parent}
        settings = None
        if self.lineage is not None:
            settings = {name: value for name, value in self.lineage.to_json().items() if name != "name"}
            settings |= {"low": self.space.low, "high": self.space.high}
        return digest({"task": self.task.fingerprint, "spec": own, "lineage": settings})

    def path(self, name: str) -> str:
        """Return where an artefact of this trial is in the store."""
        return f"{self.key}/{name}"


def run(
    parameters: dict[str, Any], task: Task, store: Store, report: Callable[[float], None] = lambda accuracy: None
) -> dict[str, float]:
    """Run one trial and return its metrics; a trial that was finished before returns them at once.

    Args:
        parameters: the spec that NNI or a controller hands out.
        task: what to train.
        store: where parents are found and artefacts left. A trial that was killed goes on from its checkpoint there.
        report: takes intermediate validation accuracies.

    Raises:
        S3DError: the parameters, the task or the store are not what they should be.
    """
    space = task.space()
    spec = parse_spec(parameters, space)
    lineage = _lineage(store, spec)
    store.claim(task.fingerprint)
    trial = Trial(task, space, store, spec, lineage, report)
    metrics: dict[str, float] | None = store.read_json(trial.path("metrics.json"), *_SHOWN)
    if spec.lineage is not None:
        store.write_json(trial_path(spec.lineage, spec.step), {"trial": os.environ.get("NNI_TRIAL_JOB_ID")})
    try:
        if metrics is None:
            data = task.load_data()
            model, graph = _first_weights(trial, data)
            store.write_json(trial.path("spec.json"), spec.to_json())
            metrics = _finish(trial, model, graph, data)
    except Exception as error:
        if spec.lineage is not None:
            store.write_json(outcome_path(spec.lineage, spec.step), {"error": f"{type(error).__name__}: {error}"})
        raise
    _record_outcome(trial)
    return metrics


def _lineage(store: Store, spec: Spec) -> Lineage | None:
    if spec.lineage is None:
        return None
    path = settings_path(spec.lineage)
    settings = store.read_json(path)
    if settings is None:
        raise StoreError(f"{store.url}: expected the settings of lineage {spec.lineage!r}, got none")
    return build(Lineage, settings, f"{store.url}/{path}: settings")


def _first_weights(trial: Trial, data: DataSet) -> tuple[nn.Module, ChannelGraph | None]:
    """Return the network before its parametric phase: fresh, or split from its parent, with its graph."""
    spec = trial.spec
    if spec.parent is None or trial.lineage is None:
        return trial.task.build_model(spec.widths, trial.seed, data.shape), None
    model, plan = _parent(trial, spec.parent, data)
    # The parent's own trial has tried out which groups can grow: those of the plan.
    graph = read_graph(model, trial.task.example(data.shape)).refuse_others(
        plan.copies, "the trial of the parent has refused it"
    )
    result = carry_out(model, graph, plan, trial.lineage.growth())
    widths = {name: result.widths.get(name) for name in spec.widths}
    if widths != spec.widths:
        expected = f"the plan of {spec.parent} to give widths {spec.widths}"
        raise StoreError(f"{trial.store.url}: expected {expected}, got {widths}")
    return result.model, result.graph


def _parent(trial: Trial, key: str, data: DataSet) -> tuple[nn.Module, GrowthPlan]:
    """Return a trained network and the plan of how it grows."""
    store = trial.store
    spec = store.read_json(f"{key}/spec.json", "widths")
    weights = store.read_tensors(f"{key}/weights.safetensors")
    content, tensors = store.read_json(f"{key}/plan.json"), store.read_tensors(f"{key}/plan.safetensors")
    if spec is None or weights is None or content is None or tensors is None:
        raise StoreError(f"{store.url}: expected the weights and the plan of the parent {key}, got none")
    widths = parse_spec(spec, trial.space, f"{store.url}/{key}/spec.json: spec").widths
    model = trial.task.build_model(widths, trial.seed, data.shape)
    try:
        model.load_state_dict(weights)
        return model, GrowthPlan.load(content, tensors)
    except (RuntimeError, ModelError) as error:
        expected = f"expected the weights and the plan of a network with widths {widths}"
        raise StoreError(f"{store.url}/{key}: {expected}, got: {first_line(error)}") from error


def _finish(trial: Trial, model: nn.Module, graph: ChannelGraph | None, data: DataSet) -> dict[str, float]:
    """Train, evaluate and decide; everything that a later trial needs is in the store before the metrics are."""
    task, store, spec = trial.task, trial.store, trial.spec
    graph = check_network(task, data, model, spec.widths, trial.lineage, graph)
    cost = count(graph)
    validation, test = (
        Loader(part, data.mean, data.std, 512, device=task.torch_device) for part in (data.validation, data.test)
    )
    loader = task.training_loader(data, trial.seed_of_step)
    recipe = _recipe(trial, cost, data)
    hooks = _hooks(trial, model, validation, recipe.epochs)
    start = time.perf_counter()
    train(model, loader, recipe, trial.seed, hooks, title=f"step {spec.step}")
    _logger.info("trained in %.1f s", time.perf_counter() - start)
    train_macs = 3 * cost.macs * len(data.train) * recipe.epochs
    if trial.lineage is not None and spec.step < trial.lineage.steps:
        train_macs += _decide(trial, model, graph, cost, data)
    store.write_tensors(trial.path("weights.safetensors"), model.state_dict())
    on_validation, on_test = evaluate(model, validation), evaluate(model, test)
    metrics = {
        "default": on_validation.accuracy,
        "test_accuracy": on_test.accuracy,
        "loss": on_validation.loss,
        **dataclasses.asdict(cost),
        "train_macs": train_macs,
        "step": spec.step,
    }
    store.write_json(trial.path("metrics.json"), metrics)
    store.remove(trial.path("checkpoint.pt"))
    return metrics


def _recipe(trial: Trial, cost: Cost, data: DataSet) -> Recipe:
    """Return how this network is trained: as the task says, or as long as its lineage says."""
    task, lineage, seed = trial.task, trial.lineage, cost
    if lineage is None:
        return task.training
    if trial.spec.step and lineage.phases == "macs":
        first = task.build_model(trial.space.low, trial.seed, data.shape)
        seed = count(read_graph(first, task.example(data.shape)))
    return lineage.recipe(task.training, seed.macs / cost.macs)


def _hooks(trial: Trial, model: nn.Module, validation: Loader, epochs: int) -> Hooks:
    every = max(1, epochs // _INTERMEDIATE_RESULTS)

    def progress(epoch: int, epochs: int) -> None:
        if epoch % every == 0:
            trial.report(evaluate(model, validation).accuracy)

    path = trial.path("checkpoint.pt")
    store = trial.store
    return Hooks(
        lambda: store.read_state(path), lambda state: store.write_state(path, state), progress, f"{store.url}/{path}"
    )


def _decide(trial: Trial, model: nn.Module, graph: ChannelGraph, cost: Cost, data: DataSet) -> int:
    """Leave the plan of the next growth step, or the reason why there is none, and return the MACs that it took."""
    assert trial.lineage is not None
    loader = trial.task.curvature_loader(data, trial.seed)
    model.eval()
    caps = {**graph.widths, **trial.space.high}  # what the search space does not name keeps its width
    memory = trial.task.curvature.memory * 2**30
    growth = trial.lineage.growth()
    decision = decide(model, graph, loader, F.cross_entropy, growth, caps, memory, trial.seed_of_step)
    _logger.info("%s", _summary(decision))
    if decision.plan is not None:
        trial.store.write_tensors(trial.path("plan.safetensors"), decision.plan.to_tensors())
        trial.store.write_json(trial.path("plan.json"), decision.plan.to_json())
    else:
        trial.store.write_json(trial.path("stop.json"), {"stop": decision.stop})
    return round(cost.macs * len(loader.images) * decision.passes)


def _summary(decision: Decision) -> str:
    if decision.plan is None:
        return f"the lineage ends: {decision.stop}"
    plan = decision.plan
    if isinstance(decision.evidence, NewNeurons):
        return f"{plan.neurons} new neurons"
    parts = [f"splitting {plan.neurons} neurons", f"predicted gain {plan.gain:.3g}"]
    if plan.held_out_gain is not None:
        error = "" if plan.held_out_error is None else f" +- {plan.held_out_error:.2g}"
        parts.append(f"{plan.held_out_gain:.3g}{error} held out")
    every = [part.converged for part in decision.evidence.values()]
    parts.append(f"{sum(int(c.sum()) for c in every)} of {sum(c.numel() for c in every)} eigenpairs converged")
    return ", ".join(parts)


def _record_outcome(trial: Trial) -> None:
    """Tell the controller what comes next."""
    if trial.spec.lineage is None:
        return
    plan = trial.store.read_json(trial.path("plan.json"), *_FOLLOWING)
    stop = trial.store.read_json(trial.path("stop.json"), "stop") or {"stop": "all steps are done"}
    following = None
    if plan is not None:
        following = {name: plan[name] for name in _FOLLOWING}
        if isinstance(plan["widths"], dict):  # of layers that the search space does not name, too
            following["widths"] = {n: w for n, w in plan["widths"].items() if n in trial.spec.widths}
    outcome = {"key": trial.key, "next": following, **({"stop": ""} if plan else stop)}
    trial.store.write_json(outcome_path(trial.spec.lineage, trial.spec.step), outcome)
