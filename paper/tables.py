"""The tables and the figure of a study, from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paper.bench import COLUMNS, Row
from paper.files import write
from paper.settings import Study

TITLES = {
    "own": "As published",
    "params": "As many parameters as {reference}",
    "macs": "As many MACs as {reference}",
    "cost": "As many MACs as {reference}, after as many MACs of training in all",
}
EQUAL = {"params": "as many parameters", "macs": "as many MACs", "cost": "as many MACs and as much training"}
HEADINGS = {
    "accuracy": "accuracy (%)",
    "top5": "top-5 (%)",
    "params": "parameters (M)",
    "macs": "MMACs",
    "flops": "MFLOPs",
    "forward": "forward (ms)",
}


def write_study(study: Study, rows: list[Row], path: Path) -> None:
    """Write the rows of a study as CSV, with the paper's numbers in columns of their own."""
    columns = [*COLUMNS, *(f"paper_{name}" for name in published_by(study))]
    numbers = {name: _published(study, name) for name in study.methods}
    of_rows = (numbers[row["method"]].get(row["step"], {}) if row["target"] == "own" else {} for row in rows)
    named = ({f"paper_{name}": number for name, number in of_row.items()} for of_row in of_rows)
    write((row | of_row for row, of_row in zip(rows, named, strict=True)), path, columns)


def _published(study: Study, name: str) -> dict[int, dict[str, float]]:
    """Return the paper's numbers of a method as published, {step: numbers}; they are those of its last steps."""
    method = study.methods[name]
    end = (study.growth | method.settings)["steps"] if method.kind == "grow" else 0
    return dict(enumerate(method.published, end + 1 - len(method.published)))


def published_by(study: Study) -> list[str]:
    """Return which numbers the paper has of the methods of a study."""
    known = {name for method in study.methods.values() for numbers in method.published for name in numbers}
    return [name for name in HEADINGS if name in known]


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


def percent(rows: Iterable[Row], column: str = "test_accuracy") -> tuple[float, float]:
    """Return mean and deviation of a fraction, in percent."""
    values = [100 * row[column] for row in rows]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def table(study: Study, rows: list[Row], target: str) -> str:
    """Return the table of one target in Markdown: means over the seeds, and deviations of the accuracy.

    A method has a line for its last network, or for as many as the paper has numbers of.
    """
    in_paper = published_by(study) if target == "own" else []
    top5 = any(row["target"] == target for row in rows) and all("test_top5" in row for row in rows)
    measured = [name for name in ("accuracy", "top5", "params", "macs", "flops") if name != "top5" or top5]
    headings = ["method", "seeds", *(HEADINGS[name] for name in measured), "training (T MACs)"]
    lines = [headings + [f"paper: {HEADINGS[name]}" for name in in_paper]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    if target != "own":
        reference = last(networks(study, rows, study.reference, "own"))
        lines += _line(f"{study.reference}, as published", reference, measured)
    for name in study.methods:
        by_step, numbers = networks(study, rows, name, target), _published(study, name) if target == "own" else {}
        shown = [(f"{name}, step {step}", by_step.get(step, []), of_paper) for step, of_paper in numbers.items()]
        if len(numbers) < 2:
            shown = [(name, last(by_step), next(iter(numbers.values()), {}))]
        for label, found, of_paper in shown:
            in_columns = [f"{of_paper[key]:g}" if key in of_paper else "" for key in in_paper]
            lines += [line + in_columns for line in _line(label, found, measured)]
    return _markdown(lines)


def _markdown(lines: Iterable[Iterable[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _accuracy(found: list[Row], column: str = "test_accuracy") -> str:
    """Return mean and deviation of a fraction, in percent, as a cell."""
    if not found:
        return ""
    mean, deviation = percent(found, column)
    return f"{mean:.1f}" + (f" ± {deviation:.1f}" if len(found) > 1 else "")


def _line(name: str, found: list[Row], measured: Iterable[str]) -> list[list[str]]:
    """Return the line of some networks, or none if there are none."""
    if not found:
        return []
    line = [name, f"{len(found)}"]
    for key in measured:
        if key in ("accuracy", "top5"):
            line.append(_accuracy(found, f"test_{key}"))
        else:
            line.append(f"{statistics.mean(row[key] for row in found) / 1e6:.3g}")
    return [[*line, f"{statistics.mean(row['train_macs'] for row in found) / 1e12:.3g}"]]


def side_by_side(study: Study, rows: list[Row], targets: Sequence[str]) -> str:
    """Return the accuracies of all methods at several targets in percent, as one table."""
    lines = [["method", *(EQUAL[target] for target in targets)]]
    lines.append(["---", *["---:"] * len(targets)])
    for name in study.methods:
        found = [last(networks(study, rows, name, target)) for target in targets]
        if any(found):
            lines.append([name, *(_accuracy(of_target) for of_target in found)])
    return _markdown(lines)


def ahead(study: Study, rows: list[Row]) -> str:
    """Return by how many points every method is ahead of the reference, seed by seed, at all targets, as one table.

    Mean and deviation are those of the differences. Where the reference has no network of a target, it is as published.
    """
    targets = [target for target in TITLES if any(row["target"] == target for row in rows)]
    lines = [["method", *(EQUAL.get(target, "as published") for target in targets)]]
    lines.append(["---", *["---:"] * len(targets)])
    as_published = networks(study, rows, study.reference, "own")
    for name in (name for name in study.methods if name != study.reference):
        cells = []
        for target in targets:
            found = last(networks(study, rows, name, target))
            reference = last(networks(study, rows, study.reference, target) or as_published)
            others = {row["seed"]: row["test_accuracy"] for row in reference}
            points = [100 * (row["test_accuracy"] - others[row["seed"]]) for row in found if row["seed"] in others]
            cells.append(f"{statistics.mean(points):+.1f} ± {statistics.stdev(points):.1f}" if len(points) > 1 else "")
        if any(cells):
            lines.append([name, *cells])
    return _markdown(lines) if len(lines) > 2 else ""


def show(study: Study, rows: list[Row]) -> str:
    """Return all tables of a study."""
    targets = {row["target"] for row in rows}
    tables = [
        f"{title.format(reference=study.reference)}\n\n{table(study, rows, target)}"
        for target, title in TITLES.items()
        if target in targets
    ]
    if len(equal := [target for target in EQUAL if target in targets]) > 1:
        tables.append(f"In one table\n\n{side_by_side(study, rows, equal)}")
    if differences := ahead(study, rows):
        tables.append(f"Points ahead of {study.reference}, seed by seed\n\n{differences}")
    return "\n\n".join(tables) or "nothing is done yet"


def draw(study: Study, rows: list[Row], path: Path) -> None:
    """Draw Figure 3: the accuracy over parameters, over FLOPs, and over c if there are several."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    by_c = _by_c(study, rows)
    columns = 2 if len(by_c) < 3 else 3
    figure, axes = plt.subplots(1, columns, figsize=(6 * columns, 6), layout="constrained")
    names = [name for name, method in study.methods.items() if method.drawn]
    colors = dict(zip(names, matplotlib.color_sequences["tab20"], strict=False))
    _over_sizes(axes[0], study, rows, "params", "own", colors)
    axes[0].set(xlabel="parameters", title="as published")
    at_equal_macs = any(row["target"] == "macs" for row in rows)
    _over_sizes(axes[1], study, rows, "flops", "macs" if at_equal_macs else "own", colors)
    axes[1].set(xlabel="FLOPs", title=f"as many MACs as {study.reference}" if at_equal_macs else "as published")
    if columns == 3:
        means, deviations = zip(*by_c.values(), strict=True)
        axes[2].errorbar(list(by_c), means, deviations, marker="o", capsize=3)
        axes[2].set(xlabel="c", title="after the last step")
    for axis in axes:
        axis.set_ylabel("test accuracy (%)")
    drawn = {line.get_label(): line for axis in axes[:2] for line in axis.lines}
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=2 * columns + 1)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _over_sizes(axis: Any, study: Study, rows: list[Row], size: str, target: str, colors: Mapping[str, Any]) -> None:
    """Draw a line for every method that grows, and a mark for every other."""
    for name, color in colors.items():
        steps = networks(study, rows, name, target).values()
        sizes = [statistics.mean(row[size] for row in found) for found in steps]
        style = "o-" if study.methods[name].kind == "grow" else "X"
        if sizes:
            axis.plot(sizes, [percent(found)[0] for found in steps], style, label=name, color=color)
    axis.set_xscale("log")


def _by_c(study: Study, rows: list[Row]) -> dict[float, tuple[float, float]]:
    """Return {c: mean and deviation of the last accuracy} of the methods that differ from the reference in c alone."""
    reference, points = study.growth | study.methods[study.reference].settings, {}
    for name, method in study.methods.items():
        settings, found = study.growth | method.settings, last(networks(study, rows, name, "own"))
        if found and method.kind == "grow" and settings | {"c": 0} == reference | {"c": 0} and not method.training:
            points[settings["c"]] = percent(found)
    return dict(sorted(points.items()))
