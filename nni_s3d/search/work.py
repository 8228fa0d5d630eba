"""The work of one trial: parametric phase -> plan of the next growth step -> evaluation -> metrics."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from nni_s3d.errors import DamageError, DivergenceError
from nni_s3d.growth.graph.cost import Cost, count
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.modules import copied
from nni_s3d.search.planning import plan_next_step
from nni_s3d.search.preflight import check_network
from nni_s3d.search.retention import CHECKPOINT
from nni_s3d.search.start import first_weights
from nni_s3d.search.tensor_files import read_checkpoint, read_tensors, write_checkpoint, write_tensors
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.tasks.data import DataSet, Loader
from nni_s3d.tasks.machine import gflops, warning
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.task import Task
from nni_s3d.tasks.together import call_helpers
from nni_s3d.tasks.training import Hooks, evaluate, train

_logger = logging.getLogger(__name__)
_INTERMEDIATE_RESULTS = 10  # validation accuracies that a trial reports on its way


def work(trial: TrialContext) -> dict[str, float]:
    """Train, decide, evaluate, and return the metrics; all that a later trial needs is in the store before they are.

    A trial that was killed goes on from its checkpoint there.

    Raises:
        DamageError: what it goes on from is damaged: its own checkpoint, or the network that it grows from.
        S3DError: the task or the settings are not what they should be, or the training diverges.
    """
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
    if trial.lineage is not None:
        train_macs += plan_next_step(trial, _that_grows(trial, start.model), graph, cost, data)
    write_tensors(store, trial.path("weights.safetensors"), start.model.state_dict())
    on_validation, on_test = evaluate(start.model, validation), evaluate(start.model, test)
    if not math.isfinite(on_validation.loss):
        raise DivergenceError(f"step {spec.step}: expected a finite loss after training, got {on_validation.loss}")
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
    return metrics


def plan_later(trial: TrialContext, metrics: dict[str, float]) -> dict[str, float]:
    """Plan the next growth step of a network that was the last one of its lineage, and return its metrics as of now.

    Raises:
        DamageError: its weights are damaged.
        S3DError: as `work`.
    """
    assert trial.lineage is not None
    task, spec = trial.task, trial.spec
    _prepare_processor(task)
    data = task.load_data()
    weights = _weights(trial, trial.grown_weights)
    model = task.build_model(spec.widths, trial.seed, data.shape)
    model.load_state_dict(weights)
    graph = check_network(task, data, model, spec.widths, lineage=trial.lineage.at(spec.step))
    macs = plan_next_step(trial, model, graph, count(graph), data)
    metrics = {**metrics, "train_macs": metrics["train_macs"] + macs}
    trial.store.write_json(trial.path("metrics.json"), metrics)
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
    store, path = trial.store, trial.path(CHECKPOINT)
    checkpoint = [read_checkpoint(store, path)]  # at once: a damaged one is found before other processes join in

    def progress(epoch: int, epochs: int) -> None:
        if epoch % interval == 0:
            trial.report(evaluate(model, validation).accuracy)

    def before_decay(state: dict[str, Any]) -> None:
        if trial.grows_before_decay:
            write_tensors(store, trial.path(trial.grown_weights), state["model"])
            write_checkpoint(store, trial.path("optimizer.pt"), state["optimizer"])

    return Hooks(
        load=checkpoint.pop,
        save=lambda state: write_checkpoint(store, path, state),
        before_decay=before_decay,
        progress=progress,
        checkpoint=store.url_of(path),
    )


def _that_grows(trial: TrialContext, model: nn.Module) -> nn.Module:
    """Return the network that growth goes on from: a trained one, or as it was before its learning rate fell."""
    if not trial.grows_before_decay:
        return model
    stable = copied(model)
    stable.load_state_dict(_weights(trial, trial.grown_weights))
    return stable


def _weights(trial: TrialContext, name: str) -> dict[str, Tensor]:
    weights = read_tensors(trial.store, trial.path(name))
    if weights is None:
        raise DamageError(f"{trial.store.url_of(trial.path(name))}: expected weights, got none")
    return weights
