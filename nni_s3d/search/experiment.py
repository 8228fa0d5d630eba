"""Read an NNI experiment file as far as growth needs it, and run the experiment in this process."""

# ruff: noqa: N815  (NNI's keys are in mixed case)

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from nni_s3d.config import build, read_json, read_yaml
from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.cost import Cost, count
from nni_s3d.growth.growth_step import check_growth
from nni_s3d.search import trial
from nni_s3d.search.branches import ways_of
from nni_s3d.search.controller import Controller
from nni_s3d.search.lineage import TUNER, Lineage
from nni_s3d.search.preflight import check_network
from nni_s3d.search.read_lineages import lineages
from nni_s3d.search.store import Store
from nni_s3d.tasks import ranks
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import Task, read_task

T = TypeVar("T")
TRIAL = "nni_s3d.plugin.trial"


@dataclass(frozen=True)
class Experiment:
    """What `nnictl create` and `nni-s3d grow` both run."""

    task: Task
    space: Space
    lineages: list[Lineage]


@dataclass(frozen=True)
class _File:
    """The keys of an experiment file that growth needs, as NNI spells them."""

    tuner: dict[str, Any] = field(default_factory=dict)
    trialCommand: str = ""
    trialCodeDirectory: str = "."
    searchSpace: dict[str, Any] | None = None
    searchSpaceFile: str | None = None


@dataclass(frozen=True)
class Tuner:
    """The tuner of an experiment file."""

    className: str | None = None
    name: str | None = None
    classArgs: dict[str, Any] | None = None

    @property
    def grows(self) -> bool:
        """Whether it is S3D."""
        return self.className == TUNER or self.name == "S3D"


@dataclass(frozen=True)
class ExperimentFile:
    """What an experiment file for nnictl says, whatever its tuner: the work, and who proposes networks."""

    path: Path
    task: Task
    entries: dict[str, Any]  # the search space as NNI spells it
    tuner: Tuner

    @property
    def space(self) -> Space:
        """The search space."""
        return Space.parse(self.entries, f"{self.path}: search space")

    @property
    def lineages(self) -> list[Lineage]:
        """What a tuner of S3D grows.

        Raises:
            ConfigError: a setting is unknown, of the wrong type or out of range.
        """
        return lineages(self.tuner.classArgs or {}, f"{self.path}: tuner.classArgs")


def read_file(path: Path) -> ExperimentFile:
    """Read an experiment file for nnictl whose trials are those of this package.

    Raises:
        ConfigError: a key that a trial needs is missing or wrong.
    """
    file = _known(_File, read_yaml(path), path)
    tuner = _known(Tuner, file.tuner, f"{path}: tuner")
    task = read_task(path.parent / file.trialCodeDirectory / _task_file(path, file.trialCommand))
    if file.searchSpace is not None:
        entries, where = file.searchSpace, f"{path}: searchSpace"
    elif file.searchSpaceFile is not None:
        where = str(path.parent / file.searchSpaceFile)
        entries = read_json(Path(where))
    else:
        raise ConfigError(f"{path}: expected searchSpaceFile or searchSpace, got neither")
    Space.parse(entries, where)
    return ExperimentFile(path, task, entries, tuner)


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file for nnictl whose tuner is S3D.

    Raises:
        ConfigError: a key that growth needs is missing or wrong, or the tuner is another one.
    """
    file = read_file(path)
    if not file.tuner.grows:
        got = {key: value for key, value in vars(file.tuner).items() if value is not None}
        raise ConfigError(f"{path}: tuner: expected className: {TUNER} or name: S3D, got {got!r}")
    return Experiment(file.task, file.space, file.lineages)


def check(experiment: Experiment) -> Cost:
    """Raise the errors of a first trial before anything is trained or written, and return the seed network's cost.

    Raises:
        S3DError: the data, the network, the search space or a lineage is not what it should be.
    """
    task, space = experiment.task, experiment.space
    if space != task.space():
        raise ConfigError(f"searchSpaceFile: expected the search space of the task, {task.search_space}, got another")
    data = task.load_data()
    model = task.build_model(space.low, task.seed, data.shape)
    for lineage in experiment.lineages:
        try:
            graph = check_network(task, data, model, space.low, lineage.at(0))
            for way in ways_of(lineage).values():
                check_growth(way.at(0), graph)
        except ConfigError as error:
            raise ConfigError(f"lineage {lineage.label}: {error}") from error
    return count(graph)


def run(
    experiment: Experiment, store: Store, report: Callable[[float], None] = lambda accuracy: None
) -> Iterator[tuple[dict[str, Any], dict[str, float] | None]]:
    """Run all growth steps one after another, with NNI's controller and trials but without NNI.

    Yields (parameters, metrics) of every trial, metrics None if it has failed.

    A trial that may go well another time is tried again, one that would repeat a mistake is not; then its lineage ends.

    Raises:
        S3DError: a mistake that is found before anything is trained.
    """
    check(experiment)
    store.claim(experiment.task.fingerprint)
    controller = Controller(experiment.lineages, experiment.space, store)
    while (parameters := controller.next()) is not None:
        try:
            metrics = trial.run(parameters, experiment.task, store, report)
        except Exception as error:  # ends this lineage at most, and no other
            if ranks.world_size() > 1:  # the other processes cannot know of it: torchrun ends them
                raise
            controller.failed(parameters, f"{type(error).__name__}: {error}", again=trial.may_go_well(error))
            yield parameters, None
        else:
            controller.finished(parameters)
            yield parameters, metrics


def _known(kind: type[T], content: dict[str, Any], where: str | Path) -> T:
    """Build a dataclass from those keys of a mapping that it has; the others are NNI's business."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return build(kind, {name: value for name, value in content.items() if name in names}, where)


def _task_file(path: Path, command: str) -> str:
    """Return the task.yml that the trial command names."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation without an end
        words = []
    if words[-2:-1] != [TRIAL] or words[-1].startswith("-"):
        raise ConfigError(f"{path}: trialCommand: expected python -m {TRIAL} task.yml, got {command!r}")
    return words[-1]
