"""The files of a report: a CSV and a figure of accuracy against parameters, MACs and search cost."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nni_s3d.errors import ReportError, S3DError
from nni_s3d.report.table import best_row

_PANELS = {"params": "parameters", "macs": "MACs per sample", "search_macs": "search cost (MACs of all trials so far)"}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
_MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Files:
    """What `write_files` has written."""

    csv: Path
    png: Path


def write_files(frame: pd.DataFrame, folder: Path) -> Files:
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
    try:
        save(figure, files.png)
    except OSError as error:
        files.png.unlink(missing_ok=True)
        raise ReportError(f"{files.png}: expected a file to write to, got: {error}") from error
    return files


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG; a letter that the font lacks is a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=150)


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(14, 5.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    legend: dict[str, Any] = {}
    for axes, (column, label) in zip(panels, _PANELS.items(), strict=True):
        _draw(axes, frame, column)
        format_axis(axes, frame[column][frame["accuracy"].notna()].dropna(), label)
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
    chosen = best_row(frame)
    return text if chosen is None else f"{text}, best validation accuracy {frame['accuracy'][chosen]:.4f}"


def _draw(axes: Any, frame: pd.DataFrame, column: str) -> None:
    """Draw a line for every lineage, points for plain widths, and a ring round the best of all."""
    rows = frame[frame["accuracy"].notna() & frame[column].notna()]
    for index, lineage in enumerate(sorted(set(frame["lineage"]))):
        trials = rows[rows["lineage"] == lineage].sort_values("step", kind="stable")
        if trials.empty:
            continue
        style = {"color": COLORS[index % len(COLORS)], "marker": _MARKERS[index % len(_MARKERS)], "markersize": 7}
        if lineage:
            axes.plot(trials[column], trials["accuracy"], label=lineage, linewidth=2, **style)
            continue
        axes.plot(trials[column], trials["accuracy"], label="trials", linestyle="none", alpha=0.7, **style)
        if column == "search_macs":
            best_so_far, color = trials["accuracy"].cummax(), COLORS[(index + 1) % len(COLORS)]
            axes.step(trials[column], best_so_far, where="post", label="best so far", linewidth=2, color=color)
    chosen = best_row(frame)
    if chosen in rows.index:
        ring = {"marker": "o", "markersize": 15, "fillstyle": "none", "color": "0.25", "linestyle": "none"}
        axes.plot(rows[column][chosen], rows["accuracy"][chosen], label="best on validation", **ring)


def format_axis(axes: Any, values: pd.Series, label: str) -> None:
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
