"""Experiments that NNI has run, as the rows of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from nni_s3d.errors import ReportError, StoreError
from nni_s3d.report.nni_experiments import NNIExperiment, find_experiment
from nni_s3d.report.table import read_frame
from nni_s3d.search.store import Store, store_url

COLUMNS = (
    *("strategy", "seed", "trial", "accuracy", "test_accuracy", "params", "macs", "flops"),
    *("train_macs", "search_macs", "widths"),
)


def collected(ids: Sequence[str], budget: float | None = None, experiments_dir: Path | None = None) -> pd.DataFrame:
    """Return the finished trials of experiments, as far as a budget of training MACs goes.

    Experiments of one name stand for several seeds of one strategy.

    Raises:
        ReportError: there is no such experiment, it has other trials than those of this package, its budget pays for
            none, or two have different tasks, as far as their stores are still there.
    """
    seeds: dict[str, int] = {}
    frames, tasks = [], {}
    for experiment_id in ids:
        experiment = find_experiment(experiment_id, experiments_dir)
        if (task := _task_of(experiment)) is not None:
            tasks[experiment_id] = task
        name = experiment.name or experiment_id
        frame = read_frame(experiment_id, experiments_dir)
        frame = frame[frame["status"] == "SUCCEEDED"]
        missing = [column for column in COLUMNS[3:] if frame[column].isna().any()]
        if missing:
            raise ReportError(f"experiment {experiment_id}: expected trials of nni_s3d, got none with {missing[0]}")
        paid = frame if budget is None else frame[frame["search_macs"] <= budget]
        if paid.empty:
            raise ReportError(f"experiment {experiment_id}: expected a trial within the budget, got none")
        seed = seeds[name] = seeds.get(name, -1) + 1
        frames.append(paid.assign(strategy=name, seed=seed, trial=range(len(paid)))[list(COLUMNS)])
    _check_tasks(tasks)
    return pd.concat(frames, ignore_index=True)


def _task_of(experiment: NNIExperiment) -> dict[str, Any] | None:
    """Return the task in the store of an experiment, but for its seed; None if the store is gone."""
    with suppress(StoreError):
        task = Store(store_url(experiment.folder)).read_json("task.json")
        return task and {name: value for name, value in task.items() if name != "seed"}
    return None


def _check_tasks(tasks: dict[str, dict[str, Any]]) -> None:
    """Refuse experiments with different tasks, by their ids."""
    if not tasks:
        return
    first, ours = next(iter(tasks.items()))
    for other, theirs in tasks.items():
        names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        if names:
            expected = f"expected the task of experiment {first}, got another one ({', '.join(names)})"
            raise ReportError(f"experiment {other}: {expected}")
