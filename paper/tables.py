"""The tables and the figure of a study, from its rows."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nni_s3d.search.folder import Folder
from paper.bench import COLUMNS, Row
from paper.settings import Study

TITLES = {
    "own": "As published",
    "params": "As many parameters as {reference}",
    "macs": "As many MACs as {reference}",
    "cost": "As many MACs as {reference}, after as many MACs of training in all",
}
HEADINGS = ("method", "seeds", "accuracy (%)", "parameters (M)", "MFLOPs", "training (T MACs)")
PUBLISHED = ("paper: accuracy", "parameters (M)", "MFLOPs")


def write(rows: Iterable[Row], path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Write the rows as CSV, under a temporary name first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    Folder(str(path.parent)).write_bytes(path.name, text.getvalue().encode())


def networks(study: Study, rows: Iterable[Row], method: str, target: str) -> dict[int, list[Row]]:
    """Return the networks of a method on its way to a target, {step: of every seed}.

    A method that grows within the MACs of the reference trains about as much, so what it comes to stands for the target
    "cost", too.
    """
    if target == "cost" and study.methods[method].kind == "grow":
        target = "macs"
    found: dict[int, list[Row]] = {}
    for row in rows:
        if (row["method"], row["target"]) == (method, target):
            found.setdefault(row["step"], []).append(row)
    return dict(sorted(found.items()))


def last(by_step: Mapping[int, list[Row]]) -> list[Row]:
    """Return the last network of every seed."""
    return list({row["seed"]: row for rows in by_step.values() for row in rows}.values())


def accuracy(rows: Iterable[Row]) -> tuple[float, float]:
    """Return mean and deviation of the test accuracy in percent."""
    values = [100 * row["test_accuracy"] for row in rows]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def table(study: Study, rows: list[Row], target: str) -> str:
    """Return the table of one target in Markdown: means over the seeds, and deviations of the accuracy."""
    headings = HEADINGS + (PUBLISHED if target == "own" else ())
    lines = [list(headings), ["---", *["---:"] * (len(headings) - 1)]]
    if target != "own":
        lines += _lines(f"{study.reference}, as published", last(networks(study, rows, study.reference, "own")))
    for name, method in study.methods.items():
        published = [f"{method.published.get(key, '')}" for key in ("accuracy", "params", "flops")]
        found = last(networks(study, rows, name, target))
        lines += [line + (published if target == "own" else []) for line in _lines(name, found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines(name: str, found: list[Row]) -> list[list[str]]:
    """Return the line of a method, or none if it has no networks."""
    if not found:
        return []
    mean, deviation = accuracy(found)
    line = [name, f"{len(found)}", f"{mean:.1f}" + (f" ± {deviation:.1f}" if len(found) > 1 else "")]
    for key, unit in (("params", 1e6), ("flops", 1e6), ("train_macs", 1e12)):
        line.append(f"{statistics.mean(row[key] for row in found) / unit:.3g}")
    return [line]


def show(study: Study, rows: list[Row]) -> str:
    """Return all tables of a study."""
    targets = {row["target"] for row in rows}
    tables = [
        f"{title.format(reference=study.reference)}\n\n{table(study, rows, target)}"
        for target, title in TITLES.items()
        if target in targets
    ]
    return "\n\n".join(tables) or "nothing is done yet"


def draw(study: Study, rows: list[Row], path: Path) -> None:
    """Draw Figure 3: the accuracy over parameters, over FLOPs, and over c."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(17, 5), layout="constrained")
    _over_sizes(axes[0], study, rows, "params", "own")
    axes[0].set(xlabel="parameters", title="as published")
    _over_sizes(axes[1], study, rows, "flops", "macs")
    axes[1].set(xlabel="FLOPs", title=f"as many MACs as {study.reference}")
    _over_c(axes[2], study, rows)
    axes[2].set(xlabel="c", title="after the last step")
    for axis in axes:
        axis.set_ylabel("test accuracy (%)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _over_sizes(axis: Any, study: Study, rows: list[Row], size: str, target: str) -> None:
    """Draw a line for every method that grows, and a mark for every other."""
    for name in (name for name, method in study.methods.items() if method.drawn):
        steps = networks(study, rows, name, target).values()
        sizes = [statistics.mean(row[size] for row in found) for found in steps]
        style = "o-" if study.methods[name].kind == "grow" else "X"
        if sizes:
            axis.plot(sizes, [accuracy(found)[0] for found in steps], style, label=name)
    axis.set_xscale("log")
    if axis.lines:
        axis.legend(fontsize="small")


def _over_c(axis: Any, study: Study, rows: list[Row]) -> None:
    """Draw the accuracy after the last step over c, of the methods that differ from the reference in c alone."""
    reference, points = study.growth | study.methods[study.reference].settings, {}
    for name, method in study.methods.items():
        settings, found = study.growth | method.settings, last(networks(study, rows, name, "own"))
        if found and method.kind == "grow" and settings | {"c": 0} == reference | {"c": 0} and not method.training:
            points[settings["c"]] = accuracy(found)
    at = sorted(points)
    axis.errorbar(at, [points[c][0] for c in at], [points[c][1] for c in at], marker="o", capsize=3)
