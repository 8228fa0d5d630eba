"""Experiments that NNI has run, as the rows of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nni_s3d.errors import ReportError
from nni_s3d.report.nni_experiments import find_experiment
from nni_s3d.report.table import read_frame

COLUMNS = (
    *("strategy", "seed", "trial", "accuracy", "test_accuracy", "params", "macs", "flops"),
    *("train_macs", "search_macs", "widths"),
)


def collected(ids: Sequence[str], budget: float | None = None, experiments_dir: Path | None = None) -> pd.DataFrame:
    """Return the finished trials of experiments, as far as a budget of training MACs goes.

    Experiments of one name stand for several seeds of one strategy.

    Raises:
        ReportError: there is no such experiment, it has other trials than those of this package, or its budget pays for
            none.
    """
    seeds: dict[str, int] = {}
    frames = []
    for experiment_id in ids:
        name = find_experiment(experiment_id, experiments_dir).name or experiment_id
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
    return pd.concat(frames, ignore_index=True)
