"""Draw what benchmarks/growth_pays.py has found: accuracy over size, and how far the others are behind the reference.

python benchmarks/growth_pays_plot.py [--config benchmarks/growth_pays.yml]
                                      [--csv benchmarks/results/growth_pays.csv] [--folder docs]

Bars are standard deviations; distances are black where they are clear, and ticks are the seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from growth_pays import Results, behind, fronts, is_clear
from growth_ways import Study
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nni_s3d.config import build, read_yaml

COLOURS = {
    "new": "#D55E00",
    "random, per MAC": "#CC79A7",
    "s3d, epsilon 0.5": "#009E73",
    "scratch": "#000000",
    "scratch, equal epochs": "#999999",
    "scratch, one size": "#0072B2",
}
NAMES = {
    "cifar100": "CIFAR-100",
    "fashion_mnist": "Fashion-MNIST",
    "digits": "Digits (359 test images)",
    "mobilenet_v1_small": "MobileNetV1",
    "vgg_small": "VGG",
}


def draw_fronts(axes: Axes, work: str, study: Study, results: Results) -> None:
    for method, colour in COLOURS.items():
        found = fronts(study, results, work, method, "test").values()
        sizes = [k for k in range(len(study.sizes)) if found and all(k in f for f in found)]
        values = [[100 * f[size] for f in found] for size in sizes]
        at, means = [study.sizes[size] for size in sizes], [statistics.mean(v) for v in values]
        axes.plot(at, means, "o-", label=method, color=colour, markersize=4, linewidth=2 if method == "new" else 1)
        if method == study.reference and sizes:
            errors = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
            low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(study.sizes, [f"x {size:g}" for size in study.sizes])
    axes.minorticks_off()


def draw_distances(axes: Axes, work: str, study: Study, results: Results, others: list[str]) -> None:
    for place, method in enumerate(others):
        values = behind(study, results, work, method, study.reference)
        if not values:
            continue
        colour = "#000000" if is_clear(values) else "#999999"
        error = statistics.stdev(values) if len(values) > 1 else 0.0
        axes.errorbar(statistics.mean(values), place, xerr=error, color=colour, marker="o", markersize=5, capsize=2)
        axes.plot(values, [place] * len(values), "|", color=colour, markersize=9)
    axes.axvline(0, color=COLOURS[study.reference], linewidth=2)
    axes.set_yticks(range(len(others)), others)
    axes.invert_yaxis()


def draw(study: Study, panel: Callable[[Axes, str], None], height: float, xlabel: str) -> Figure:
    """Draw a panel for every work: data sets side by side, networks below each other."""
    data = [name for name in NAMES if any(work["data"] == name for work in study.works.values())]
    nets = [name for name in NAMES if any(work["model"] == name for work in study.works.values())]
    size = (4 * len(data), height * len(nets))
    figure, grid = plt.subplots(len(nets), len(data), figsize=size, layout="constrained", squeeze=False)
    for name, work in study.works.items():
        row, column = nets.index(work["model"]), data.index(work["data"])
        panel(grid[row, column], name)
        grid[row, column].set_title(f"{NAMES[work['data']]}, {NAMES[work['model']]}")
        if row == len(nets) - 1:
            grid[row, column].set_xlabel(xlabel)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_pays.yml"))
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/growth_pays.csv"))
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), parsed.config)
    results = Results.read(parsed.csv, study)
    figure = draw(
        study, partial(draw_fronts, study=study, results=results), 3.2, "parameters / those of the seed network"
    )
    for axes in figure.axes[:: len(figure.axes) // 2]:
        axes.set_ylabel("test accuracy in %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(COLOURS))
    figure.savefig(parsed.folder / "growing_pays.png", dpi=110)
    others = [m for m in study.methods if any(behind(study, results, work, m, study.reference) for work in study.works)]
    others.remove(study.reference)
    panel = partial(draw_distances, study=study, results=results, others=others)
    figure = draw(study, panel, 3.0, f"points behind '{study.reference}'")
    for number, axes in enumerate(figure.axes):
        axes.tick_params(labelleft=number % (len(figure.axes) // 2) == 0)
    figure.savefig(parsed.folder / "growing_pays_behind.png", dpi=110)


if __name__ == "__main__":
    main()
