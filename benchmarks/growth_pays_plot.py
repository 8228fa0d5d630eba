"""Draw what benchmarks/growth_pays.py has found: the accuracy of every method over the size of its networks.

python benchmarks/growth_pays_plot.py [--config benchmarks/growth_pays.yml]
                                      [--csv benchmarks/results/growth_pays.csv] [--to docs/growing_pays.png]

The band is one standard deviation of the first method.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
from growth_pays import Results, fronts
from growth_ways import Study
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nni_s3d.config import build, read_yaml

STYLES = {  # colour and line; the first is the one that the others are compared with
    "s3d": ("#D55E00", "-"),
    "new neurons": ("#009E73", "-"),
    "random splits": ("#E69F00", "-"),
    "prune, l1": ("#0072B2", "--"),
    "slimmable": ("#CC79A7", "--"),
    "scratch": ("#000000", ":"),
}
NAMES = {
    "cifar100": "CIFAR-100",
    "fashion_mnist": "Fashion-MNIST",
    "digits": "Digits",
    "mobilenet_v1_small": "MobileNetV1",
    "vgg_small": "VGG",
}


def draw_fronts(axes: Axes, work: str, study: Study, results: Results) -> None:
    for number, (method, (colour, line)) in enumerate(STYLES.items()):
        found = fronts(study, results, work, method, "test").values()
        sizes = [k for k in range(len(study.sizes)) if found and all(k in f for f in found)]
        values = [[100 * f[size] for f in found] for size in sizes]
        at, means = [study.sizes[size] for size in sizes], [statistics.mean(v) for v in values]
        axes.plot(at, means, line, marker="o", label=method, color=colour, markersize=4, zorder=9 - number)
        if number == 0 and found:
            errors = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
            low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(study.sizes, [f"x {size:g}" for size in study.sizes])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.3)


def draw(study: Study, results: Results) -> Figure:
    """Draw a panel for every work: data sets side by side, networks below each other."""
    data, nets = ([n for n in NAMES if any(w[key] == n for w in study.works.values())] for key in ("data", "model"))
    size = (4 * len(data), 3.2 * len(nets))
    figure, grid = plt.subplots(len(nets), len(data), figsize=size, layout="constrained", squeeze=False)
    for name, work in study.works.items():
        axes = grid[nets.index(work["model"]), data.index(work["data"])]
        draw_fronts(axes, name, study, results)
        axes.set_title(f"{NAMES[work['data']]}, {NAMES[work['model']]}")
    for axes in grid[-1]:
        axes.set_xlabel("parameters / those of the seed network")
    for axes in grid[:, 0]:
        axes.set_ylabel("test accuracy in %")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(STYLES))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_pays.yml"))
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/growth_pays.csv"))
    parser.add_argument("--to", type=Path, default=Path("docs/growing_pays.png"))
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), parsed.config)
    draw(study, Results.read(parsed.csv, study)).savefig(parsed.to, dpi=110)


if __name__ == "__main__":
    main()
