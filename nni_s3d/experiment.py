"""Read an NNI experiment file as far as growth needs it, and run the experiment in this process."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nni_s3d.config import read_yaml
from nni_s3d.errors import ConfigError
from nni_s3d.growth.channels import trace
from nni_s3d.lineage import Lineage, lineages
from nni_s3d.plugin import trial
from nni_s3d.plugin.controller import Controller
from nni_s3d.spec import Space
from nni_s3d.store import Store
from nni_s3d.task import Task, read_task

TUNER = "nni_s3d.plugin.tuner.S3DTuner"


@dataclass(frozen=True)
class Experiment:
    """What `nnictl create` and `nni-s3d grow` both run."""

    task: Task
    space: Space
    lineages: list[Lineage]


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file for nnictl whose tuner is S3D.

    Raises:
        ConfigError: a key that growth needs is missing or wrong, or the tuner is another one.
    """
    content = read_yaml(path)
    tuner = content.get("tuner") or {}
    if tuner.get("className") != TUNER and tuner.get("name") != "S3D":
        raise ConfigError(f"{path}: tuner: expected className: {TUNER} or name: S3D, got {tuner!r}")
    code = path.parent / content.get("trialCodeDirectory", ".")
    task = read_task(code / _task_file(path, content))
    if "searchSpace" in content:
        space = Space.parse(content["searchSpace"], f"{path}: searchSpace")
    elif "searchSpaceFile" in content:
        space = Space.read(path.parent / content["searchSpaceFile"])
    else:
        raise ConfigError(f"{path}: expected searchSpaceFile or searchSpace, got neither")
    return Experiment(task, space, lineages(tuner.get("classArgs") or {}, f"{path}: tuner.classArgs"))


def run(
    experiment: Experiment, store: Store, report: Callable[[float], None] = lambda accuracy: None
) -> Iterator[tuple[dict[str, Any], dict[str, float] | None]]:
    """Run all growth steps one after another, with NNI's controller and trials but without NNI.

    Yields (parameters, metrics) of every trial, metrics None if it has failed.
    """
    _check(experiment)
    store.claim(experiment.task.fingerprint)
    controller = Controller(experiment.lineages, experiment.space, store)
    while (parameters := controller.next()) is not None:
        try:
            metrics = trial.run(parameters, experiment.task, store, report)
        except Exception as error:
            controller.failed(parameters, f"{type(error).__name__}: {error}")
            yield parameters, None
        else:
            controller.finished(parameters)
            yield parameters, metrics


def _check(experiment: Experiment) -> None:
    """Raise the errors of a first trial before anything is trained or written."""
    task = experiment.task
    task.space()
    data = task.load_data()
    model = task.build_model(experiment.space.low, task.seed)
    for lineage in experiment.lineages:
        trial.check(lineage, trace(model, torch.zeros(1, *data.shape, device=task.torch_device)))


def _task_file(path: Path, content: dict[str, Any]) -> str:
    """Return the task.yml that the trial command names."""
    words = shlex.split(str(content.get("trialCommand", "")))
    if trial.MODULE not in words:
        raise ConfigError(f"{path}: trialCommand: expected python -m {trial.MODULE} task.yml, got {' '.join(words)!r}")
    return str(trial.parser().parse_args(words[words.index(trial.MODULE) + 1 :]).task)
