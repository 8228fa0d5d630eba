"""Results of an NNI experiment, running or finished: a table, a CSV file and a plot."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from nni_s3d.errors import ReportError, S3DError
from nni_s3d.experiments import ENDED, Experiment, Trial, find, read_trials
from nni_s3d.spec import from_sample

_logger = logging.getLogger(__name__)
_METRICS = ("test_accuracy", "loss", "params", "macs", "flops", "train_macs")
_PANELS = {"params": "parameters", "macs": "MACs per sample", "search_macs": "search cost (MACs of all trials so far)"}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
_MARKERS = "osD^vPX"
_POLL = 2.0  # seconds
_QUIET_POLLS = 6  # a tuner that has "no more trials" may send one when a trial ends, and NNI takes seconds to start it


@dataclass(frozen=True)
class Files:
    """What `write` has written."""

    csv: Path
    png: Path


def read(experiment_id: str | None = None, experiments_dir: Path | None = None) -> pd.DataFrame:
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
    experiment = find(experiment_id, experiments_dir)
    trials = read_trials(experiment)
    if not any(trial.status == "SUCCEEDED" for trial in trials):
        raise ReportError(_nothing_finished(experiment, trials))
    frame = pd.DataFrame([_row(experiment, trial) for trial in trials])
    frame.insert(frame.columns.get_loc("train_macs") + 1, "search_macs", frame["train_macs"].cumsum())
    return frame


def _row(experiment: Experiment, trial: Trial) -> dict[str, Any]:
    metrics = trial.metrics
    # The parameters of a trial of a NAS experiment are a whole model space, frozen by a sample.
    sample = trial.parameters.get("sample")
    spec = from_sample(sample) if isinstance(sample, dict) else trial.parameters
    # A growth spec has its widths under that key; plain widths are the whole.
    if not isinstance(spec.get("widths"), dict):
        spec = {"widths": spec}
    step = spec.get("step")
    took = math.nan if trial.started is None or trial.ended is None else (trial.ended - trial.started) / 1000
    return {
        "experiment": experiment.id,
        "trial": trial.id,
        "sequence": trial.sequence,
        "lineage": spec.get("lineage") or "",
        "step": metrics.get("step", math.nan) if step is None else float(step),
        "accuracy": metrics.get("default", math.nan),
        **{name: metrics.get(name, math.nan) for name in _METRICS},
        "status": trial.status,
        "seconds": took,
        "widths": json.dumps({name: _whole(width) for name, width in spec["widths"].items()}),
    }


def _whole(width: Any) -> Any:
    """Return 8 for the 8.0 that NNI's quniform gives."""
    return int(width) if isinstance(width, float) and width.is_integer() else width


def _nothing_finished(experiment: Experiment, trials: list[Trial]) -> str:
    counts = pd.Series([trial.status for trial in trials], dtype=str).value_counts()
    found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no trial"
    failed = next((f"; see {trial.folder}/trial.stderr" for trial in trials if trial.status == "FAILED"), "")
    where = f"experiment {experiment.id} ({experiment.status}): {experiment.database}"
    return f"{where}: expected a finished trial, found {found}{failed}"


def best(frame: pd.DataFrame) -> int | None:
    """Return the index of the row of the best validation accuracy, the first of equals; None if there is none."""
    known = frame["accuracy"].dropna()
    return None if known.empty else int(known.idxmax())


def table(frame: pd.DataFrame) -> str:
    """Return a table for the terminal, the best validation accuracy marked by a star.

    Test accuracy stands beside it and is never used to choose. Columns without any value are left out.
    """
    chosen = best(frame)
    columns = {
        "": ["*" if index == chosen else " " for index in frame.index],
        "trial": list(frame["trial"]),
        "lineage": list(frame["lineage"]),
        "step": [_number(value, ".0f") for value in frame["step"]],
        "accuracy": [_number(value, ".4f") for value in frame["accuracy"]],
        "test": [_number(value, ".4f") for value in frame["test_accuracy"]],
        "loss": [_number(value, ".4g") for value in frame["loss"]],
        "params": [si(value) for value in frame["params"]],
        "MACs": [si(value) for value in frame["macs"]],
        "search MACs": [si(value) for value in frame["search_macs"]],
        "time": [_duration(value) for value in frame["seconds"]],
        "status": list(frame["status"]),
    }
    shown = {title: cells for title, cells in columns.items() if not title or any(c not in ("", "-") for c in cells)}
    widths = [max(map(len, [title, *cells])) for title, cells in shown.items()]
    aligned = ["<" if title in ("", "trial", "lineage", "status") else ">" for title in shown]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(cells, aligned, widths, strict=True)).rstrip()
        for cells in [list(shown), ["-" * width for width in widths], *zip(*shown.values(), strict=True)]
    ]
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


def _number(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else "-"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "-"


def write(frame: pd.DataFrame, folder: Path) -> Files:
    """Write trials.csv and report.png, which shows validation accuracy against parameters, MACs and search cost.

    Raises:
        ReportError: the folder cannot be written to.
        S3DError: matplotlib is missing; the CSV file is written all the same.
    """
    files = Files(folder / "trials.csv", folder / "report.png")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_csv(files.csv, index=False, float_format="%.15g")
    except OSError as error:
        raise ReportError(f"{folder}: expected a folder to write to, got: {error}") from error
    try:
        figure = _figure(frame)
    except ImportError as error:
        missing = 'the plot needs matplotlib: pip install "nni_s3d[plots]"'
        raise S3DError(f"{missing} (the numbers are in {files.csv})") from error
    figure.savefig(files.png, dpi=150)
    return files


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(14, 5.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    legend: dict[str, Any] = {}
    for axes, (column, label) in zip(panels, _PANELS.items(), strict=True):
        _draw(axes, frame, column)
        _format(axes, frame[column][frame["accuracy"].notna()].dropna(), label)
        handles, labels = axes.get_legend_handles_labels()
        legend.update(zip(labels, handles, strict=True))
    panels[0].set_ylabel("validation accuracy", fontsize=13)
    figure.suptitle(_title(frame), fontsize=14)
    if legend:
        places = {"loc": "outside lower center", "ncols": min(len(legend), 5)}
        figure.legend(legend.values(), legend.keys(), fontsize=12, frameon=False, **places)
    return figure


def _title(frame: pd.DataFrame) -> str:
    finished = int((frame["status"] == "SUCCEEDED").sum())
    text = f"{frame['experiment'].iloc[0]}: {finished} finished trial{'' if finished == 1 else 's'}"
    chosen = best(frame)
    return text if chosen is None else f"{text}, best validation accuracy {frame['accuracy'][chosen]:.4f}"


def _draw(axes: Any, frame: pd.DataFrame, column: str) -> None:
    """Draw a line for every lineage, points for plain widths, and a ring round the best of all."""
    rows = frame[frame["accuracy"].notna() & frame[column].notna()]
    for number, lineage in enumerate(sorted(set(frame["lineage"]))):
        part = rows[rows["lineage"] == lineage].sort_values("step", kind="stable")
        if part.empty:
            continue
        style = {"color": _COLORS[number % len(_COLORS)], "marker": _MARKERS[number % len(_MARKERS)], "markersize": 7}
        if lineage:
            axes.plot(part[column], part["accuracy"], label=lineage, linewidth=2, **style)
            continue
        axes.plot(part[column], part["accuracy"], label="trials", linestyle="none", alpha=0.7, **style)
        if column == "search_macs":
            top, color = part["accuracy"].cummax(), _COLORS[(number + 1) % len(_COLORS)]
            axes.step(part[column], top, where="post", label="best so far", linewidth=2, color=color)
    chosen = best(frame)
    if chosen in rows.index:
        ring = {"marker": "o", "markersize": 15, "fillstyle": "none", "color": "0.25", "linestyle": "none"}
        axes.plot(rows[column][chosen], rows["accuracy"][chosen], label="best on validation", **ring)


def _format(axes: Any, values: pd.Series, label: str) -> None:
    """Label an axis of counts with k, M and G, logarithmically if they span more than a decade."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    if values.empty:
        axes.text(0.5, 0.5, "not reported", transform=axes.transAxes, ha="center", color="0.4", fontsize=12)
        axes.set_xticks([])
    elif values.min() > 0 and values.max() > 10 * values.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.max() < 100 * values.min() else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(label, fontsize=13)
    axes.tick_params(labelsize=11)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def follow(
    experiment_id: str | None = None,
    experiments_dir: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Return the status of an experiment once it has ended; a line on a terminal shows how far it is.

    It has ended too when its tuner has no more trials and nothing has run for a while: NNI itself then waits for ever.

    Raises:
        ReportError: there is no such experiment.
    """
    quiet = 0
    experiment_id = find(experiment_id, experiments_dir).id
    with tqdm(desc=experiment_id, bar_format="{desc}: {n_fmt} finished, {elapsed}{postfix}", disable=None) as bar:
        while True:
            experiment = find(experiment_id, experiments_dir)
            trials = read_trials(experiment)
            top = max((t.metrics.get("default", -math.inf) for t in trials), default=-math.inf)
            bar.n = sum(trial.status == "SUCCEEDED" for trial in trials)
            bar.set_postfix_str(f"{experiment.status}, best accuracy {_number(top, '.4f')}")
            idle = "NO_MORE_TRIAL" in experiment.status and trials and all(t.ended is not None for t in trials)
            quiet = quiet + 1 if idle else 0
            if experiment.status in ENDED or quiet > _QUIET_POLLS:
                return experiment.status
            sleep(_POLL)


def command(experiment_id: str | None, wait: bool, out: Path | None, experiments_dir: Path | None = None) -> int:
    """Run `nni-s3d report`: wait for an experiment if asked, print its table, write its files, say where they are.

    Raises:
        S3DError: there is nothing to report, or matplotlib is missing.
    """
    experiment = find(experiment_id, experiments_dir)
    if wait and experiment.status not in ENDED:
        where = f"http://localhost:{experiment.port}" if experiment.port else experiment.folder
        _logger.info("waiting for the end of experiment %s (%s); --no-wait reports at once", experiment.id, where)
        follow(experiment.id, experiments_dir)
    frame = read(experiment.id, experiments_dir)
    print(table(frame))
    files = write(frame, out or Path("reports", experiment.id))
    print(f"{files.csv}\n{files.png}")
    return 0
