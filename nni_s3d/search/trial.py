"""One trial, without NNI: spec -> parametric phase -> plan of the next growth step -> evaluation -> metrics."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.growth.graph.cost import Cost, count
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.modules import copied
from nni_s3d.search.branches import plan_name
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path, trial_path
from nni_s3d.search.planning import plan_next_step, record_outcome
from nni_s3d.search.preflight import check_network
from nni_s3d.search.read_lineages import read_lineage
from nni_s3d.search.spec import Spec, parse_spec
from nni_s3d.search.start import first_weights
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_checkpoint, read_tensors, write_checkpoint, write_tensors
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.tasks.data import DataSet, Loader
from nni_s3d.tasks.machine import gflops, warning
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.task import Task
from nni_s3d.tasks.together import call_helpers
from nni_s3d.tasks.training import Hooks, evaluate, train

_logger = logging.getLogger(__name__)
_SHOWN = ("default", "test_accuracy", "params", "macs")  # what every reader of a trial's metrics counts on
_INTERMEDIATE_RESULTS = 10  # validation accuracies that a trial reports on its way


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
    parent, plan = _parent_of(store, spec)
    trial = TrialContext(task, space, store, spec, lineage=lineage, parent=parent, plan=plan, report=report)
    metrics: dict[str, float] | None = store.read_json(trial.path("metrics.json"), *_SHOWN)
    if spec.lineage is not None:
        store.write_json(trial_path(spec.lineage, spec.step), {"trial": os.environ.get("NNI_TRIAL_JOB_ID")})
    try:
        if metrics is None:
            metrics = _run(trial)
    except Exception as error:
        if spec.lineage is not None:
            store.write_json(outcome_path(spec.lineage, spec.step), {"error": f"{type(error).__name__}: {error}"})
        raise
    record_outcome(trial, metrics)
    return metrics


def _lineage(store: Store, spec: Spec) -> Lineage | None:
    if spec.lineage is None:
        return None
    path = settings_path(spec.lineage)
    settings = store.read_json(path)
    if settings is None:
        raise StoreError(f"{store.url}: expected the settings of lineage {spec.lineage!r}, got none")
    try:
        return read_lineage(settings, store.url_of(path))
    except ConfigError as error:
        raise StoreError(f"{error}; if an older version of nni_s3d wrote it, start with a new store") from error


def _parent_of(store: Store, spec: Spec) -> tuple[str | None, str]:
    """Return the key of the step before, as its outcome says, and the name of the plan there."""
    if spec.lineage is None or spec.step == 0:
        return None, plan_name()
    path = outcome_path(spec.lineage, spec.step - 1)
    outcome = store.read_json(path)
    if outcome is None or not isinstance(outcome.get("key"), str):
        raise StoreError(f"{store.url_of(path)}: expected the outcome of the step before step {spec.step}, got none")
    return outcome["key"], str(outcome.get("plan", plan_name()))


def _run(trial: TrialContext) -> dict[str, float]:
    """Train, evaluate and decide; everything that a later trial needs is in the store before the metrics are."""
    task, store, spec = trial.task, trial.store, trial.spec
    _prepare_processor(task)
    data = task.load_data()
    start = first_weights(trial, data)
    store.write_json(trial.path("spec.json"), spec.to_parameters())
    grows = trial.lineage and trial.lineage.at(spec.step)
    graph = check_network(task, data, start.model, spec.widths, lineage=grows, graph=start.graph)
    cost = count(graph)
    recipe = _recipe(trial, cost, data)
    validation, test = (
        Loader(part, data.mean, data.std, 512, device=task.torch_device) for part in (data.validation, data.test)
    )
    begun = time.perf_counter()
    hooks = _hooks(trial, start.model, validation, recipe.epochs)
    batches = task.training_loader(data, trial.seed_of_step)
    call_helpers(spec.widths, recipe, trial.seed, trial.seed_of_step, data)
    train(start.model, batches, recipe, trial.seed, hooks, f"step {spec.step}", start.optimizer_state)
    _logger.info("trained for %d epochs in %.1f s", recipe.epochs, time.perf_counter() - begun)
    train_macs = start.macs + 3 * cost.macs * len(data.train) * recipe.epochs
    if trial.lineage is not None and spec.step < trial.lineage.steps:
        train_macs += plan_next_step(trial, _that_grows(trial, start.model), graph, cost, data)
    write_tensors(store, trial.path("weights.safetensors"), start.model.state_dict())
    on_validation, on_test = evaluate(start.model, validation), evaluate(start.model, test)
    metrics = {
        "default": on_validation.accuracy,
        "test_accuracy": on_test.accuracy,
        **({} if on_test.top5 is None else {"test_top5": on_test.top5}),
        "loss": on_validation.loss,
        **dataclasses.asdict(cost),
        "train_macs": train_macs,
        "step": spec.step,
    }
    store.write_json(trial.path("metrics.json"), metrics)
    store.remove(trial.path("checkpoint.pt"))
    return metrics


def _prepare_processor(task: Task) -> None:
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    if task.torch_device.type == "cpu" and (slow := warning(gflops())):
        _logger.warning("%s", slow)


def _recipe(trial: TrialContext, cost: Cost, data: DataSet) -> Recipe:
    """Return how this network is trained: as the task says, or as long as its lineage says."""
    task, lineage = trial.task, trial.lineage
    if lineage is None:
        return task.training
    epochs = lineage.epochs_of(trial.spec.step) or task.training.epochs
    if trial.spec.step and lineage.phase_budget == "macs":
        seed_network = task.build_model(trial.space.low, trial.seed, data.shape)
        seed_macs = count(read_graph(seed_network, task.example(data.shape))).macs
        epochs = max(1, round(epochs * seed_macs / cost.macs))
    recipe = task.training.lasting(epochs)
    goes_on = trial.spec.step > 0 and trial.grows_before_decay
    return dataclasses.replace(recipe, warmup_epochs=0.0) if goes_on else recipe


def _hooks(trial: TrialContext, model: nn.Module, validation: Loader, epochs: int) -> Hooks:
    interval = max(1, epochs // _INTERMEDIATE_RESULTS)
    store, path = trial.store, trial.path("checkpoint.pt")

    def progress(epoch: int, epochs: int) -> None:
        if epoch % interval == 0:
            trial.report(evaluate(model, validation).accuracy)

    def before_decay(state: dict[str, Any]) -> None:
        if trial.grows_before_decay:
            write_tensors(store, trial.path(trial.grown_weights), state["model"])
            write_checkpoint(store, trial.path("optimizer.pt"), state["optimizer"])

    return Hooks(
        load=lambda: read_checkpoint(store, path),
        save=lambda state: write_checkpoint(store, path, state),
        before_decay=before_decay,
        progress=progress,
        checkpoint=store.url_of(path),
    )


def _that_grows(trial: TrialContext, model: nn.Module) -> nn.Module:
    """Return the network that growth goes on from: a trained one, or as it was before its learning rate fell."""
    if not trial.grows_before_decay:
        return model
    weights = read_tensors(trial.store, trial.path(trial.grown_weights))
    if weights is None:
        raise StoreError(f"{trial.store.url_of(trial.path(trial.grown_weights))}: expected weights, got none")
    stable = copied(model)
    stable.load_state_dict(weights)
    return stable
