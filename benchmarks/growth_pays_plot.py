"""Draw what benchmarks/growth_pays.py has found: accuracy over size, and how far the others are behind the reference.

python benchmarks/growth_pays_plot.py [--config benchmarks/growth_pays.yml]
                                      [--csv benchmarks/results/growth_pays.csv] [--out docs/growing_pays.png]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
from growth_pays import Results, behind_reference, fronts
from growth_ways import Study
from matplotlib.axes import Axes

from nni_s3d.config import build, read_yaml

COLOURS = {
    "new": "#0072B2",
    "random, per MAC": "#CC79A7",
    "random": "#D55E00",
    "s3d": "#009E73",
    "s2d": "#E69F00",
    "scratch": "#000000",
}


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def draw_fronts(axes: Axes, study: Study, results: Results, work: str) -> None:
    for place, (method, colour) in enumerate(COLOURS.items()):
        found = fronts(study, results, work, method, "test").values()
        if not found:
            continue
        each = [mean_and_deviation([100 * f[size] for f in found]) for size in range(len(study.sizes))]
        means, errors = zip(*each, strict=True)
        at = [size * (1 + 0.012 * (place - 2.5)) for size in study.sizes]
        axes.errorbar(at, means, errors, label=method, color=colour, marker="o", markersize=3, capsize=2, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(study.sizes, [f"{size:g}" for size in study.sizes])
    axes.minorticks_off()
    axes.set(title=work, xlabel="parameters / those of the seed")


def draw_distances(axes: Axes, study: Study, results: Results, work: str, others: list[str]) -> None:
    for place, method in enumerate(others):
        values = behind_reference(study, results, work, method)
        if not values:
            continue
        mean, error = mean_and_deviation(values)
        colour = COLOURS.get(method, "#888888")
        axes.errorbar(-mean, place, xerr=error, color=colour, marker="o", markersize=4, capsize=2)
        axes.plot([-v for v in values], [place] * len(values), "|", color=colour, markersize=8)
    axes.axvline(0, color=COLOURS[study.reference], linewidth=1)
    axes.set_yticks(range(len(others)), others)
    axes.invert_yaxis()
    axes.set(xlabel=f"points above '{study.reference}'")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_pays.yml"))
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/growth_pays.csv"))
    parser.add_argument("--out", type=Path, default=Path("docs/growing_pays.png"))
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), parsed.config)
    results = Results.read(parsed.csv, study)
    works = [work for work in study.works if fronts(study, results, work, study.reference, "test")]
    figure, axes = plt.subplots(2, len(works), figsize=(3.4 * len(works), 6.5), layout="constrained", squeeze=False)
    others = [m for m in study.methods if any(behind_reference(study, results, work, m) for work in works)]
    others.remove(study.reference)
    for (above, below), work in zip(axes.T, works, strict=True):
        draw_fronts(above, study, results, work)
        draw_distances(below, study, results, work, others)
        if work != works[0]:
            below.tick_params(labelleft=False)
    axes[0, 0].set_ylabel("test accuracy in %")
    axes[0, 0].legend(frameon=False, fontsize="small")
    figure.savefig(parsed.out, dpi=120)


if __name__ == "__main__":
    main()
