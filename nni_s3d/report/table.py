"""One row per trial of an NNI experiment, as a data frame and as text."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from nni_s3d.errors import ReportError, one_line
from nni_s3d.growth.text_table import table_lines
from nni_s3d.report.nni_database import NNITrial, is_finite, read_trials
from nni_s3d.report.nni_experiments import NNIExperiment, find_experiment
from nni_s3d.search.spec import widths_of

METRICS = ("test_accuracy", "loss", "params", "macs", "flops", "train_macs")


def read_frame(experiment_id: str | None = None, experiments_dir: Path | None = None) -> pd.DataFrame:
    """Return one row per trial: those that have ended in the order of their ends, then the others.

    Columns: experiment, trial, sequence, lineage (empty for plain widths), step, accuracy (validation),
    test_accuracy, loss, params, macs, flops, train_macs, search_macs (the sum of train_macs so far), status,
    seconds, widths (JSON). What a trial has not reported is NaN; only a trial that has succeeded has metrics.

    Args:
        experiment_id: default: the latest.
        experiments_dir: where NNI keeps its list (default: ~/nni-experiments).

    Raises:
        ReportError: there is no such experiment, or none of its trials has finished.
    """
    experiment = find_experiment(experiment_id, experiments_dir)
    trials = read_trials(experiment)
    if not any(trial.status == "SUCCEEDED" for trial in trials):
        raise ReportError(_nothing_finished(experiment, trials))
    frame = pd.DataFrame([_row(experiment, trial) for trial in trials])
    frame.insert(frame.columns.get_loc("train_macs") + 1, "search_macs", frame["train_macs"].cumsum())
    return frame


def _row(experiment: NNIExperiment, trial: NNITrial) -> dict[str, Any]:
    metrics, parameters = trial.metrics, trial.sample
    step = parameters.get("step")
    took = math.nan if trial.started is None or trial.ended is None else (trial.ended - trial.started) / 1000
    return {
        "experiment": experiment.id,
        "trial": one_line(trial.id),
        "sequence": trial.sequence,
        "lineage": one_line(str(parameters.get("lineage") or "")),
        "step": float(step) if is_finite(step) else metrics.get("step", math.nan),
        "accuracy": metrics.get("default", math.nan),
        **{name: metrics.get(name, math.nan) for name in METRICS},
        "status": one_line(trial.status),
        "seconds": took,
        "widths": json.dumps({name: _whole(width) for name, width in widths_of(parameters).items()}),
    }


def _whole(width: Any) -> Any:
    """Return 8 for the 8.0 that NNI's quniform gives."""
    return int(width) if isinstance(width, float) and width.is_integer() else width


def _nothing_finished(experiment: NNIExperiment, trials: list[NNITrial]) -> str:
    counts = pd.Series([trial.status for trial in trials], dtype=str).value_counts()
    statuses = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no trial"
    failed = next((f"; see {trial.folder}/trial.stderr" for trial in trials if trial.status == "FAILED"), "")
    where = f"experiment {experiment.id} ({experiment.status}): {experiment.database}"
    return f"{where}: expected a finished trial, found {statuses}{failed}"


def best_row(frame: pd.DataFrame) -> int | None:
    """Return the index of the row of the best validation accuracy, the first of equals; None if there is none."""
    known = frame["accuracy"].dropna()
    return None if known.empty else int(known.idxmax())


def table(frame: pd.DataFrame) -> str:
    """Return a table for the terminal, the best validation accuracy marked by a star.

    Test accuracy stands beside it and is never used to choose. Columns without any value are left out.
    """
    chosen = best_row(frame)
    columns = {
        "": ["*" if index == chosen else " " for index in frame.index],
        "trial": list(frame["trial"]),
        "lineage": list(frame["lineage"]),
        "step": [formatted(value, ".0f") for value in frame["step"]],
        "accuracy": [formatted(value, ".4f") for value in frame["accuracy"]],
        "test": [formatted(value, ".4f") for value in frame["test_accuracy"]],
        "loss": [formatted(value, ".4g") for value in frame["loss"]],
        "params": [si(value) for value in frame["params"]],
        "MACs": [si(value) for value in frame["macs"]],
        "search MACs": [si(value) for value in frame["search_macs"]],
        "time": [duration(value) for value in frame["seconds"]],
        "status": list(frame["status"]),
    }
    shown = {title: cells for title, cells in columns.items() if not title or any(c not in ("", "-") for c in cells)}
    numeric = shown.keys() - {"", "trial", "lineage", "status"}
    lines = table_lines(list(shown), zip(*shown.values(), strict=True), right=numeric, ruled=True)
    return "\n".join([*lines, "* best validation accuracy; test accuracy is shown only, never used to choose"])


def si(value: float) -> str:
    """Return a count with three or four digits and its unit: 950, 30.2k, 1.20M, 3.45G."""
    if not math.isfinite(value):
        return "-"
    for unit, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            scaled = value / factor
            return f"{scaled:.{2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0}f}{unit}"
    return f"{value:.0f}"


def formatted(value: float, form: str) -> str:
    """Return a number in a format, or a dash where there is none."""
    return f"{value:{form}}" if math.isfinite(value) else "-"


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds, or a dash where there are none."""
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "-"
