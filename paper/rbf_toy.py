"""Figure 2 of the paper: S2D gets stuck on a one-dimensional RBF network, signed splittings do not.

    python -m paper.rbf_toy [--seeds 0 1 2 3 4 5 6 7] [--methods NAME ...] [--neurons 15] [--iterations 10000]
                            [--out reports/rbf_toy]

Every run starts with one neuron and splits one neuron per phase. A phase takes (m - 1) * iterations full-batch steps of
Adam, so that networks of one size have been trained for one number of steps. Prints the final losses and writes
rbf_toy.csv (all runs and seeds) and rbf_toy.png: losses of all seeds in panels (a) and (b), (c) and (d) for the first.
What is done is kept in OUT and not run again, except the first seed, for its panels. The figure needs all methods.

Signed binary splittings stay stuck on some seeds: they keep splitting positively, for tiny gains, and the loss does not
move. The cure is `rbf_run.Rescue`: after a phase in vain the next split is a quartet, which gains most of all (Theorem
2.3) and moves copies along both ends of the spectrum. Where no phase is in vain it changes nothing.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from tqdm import tqdm

import nni_s3d as s3d
from paper.files import file_name, write
from paper.rbf_run import (
    BINARY,
    BLUE,
    BY_C,
    BY_COPIES,
    METHODS,
    ORANGE,
    RANGE,
    TARGET_NEURONS,
    Method,
    plan_of,
    problem,
    rows,
    run,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_EPSILON = 0.1  # of the curves in panel (d), where 0.01 could not be seen


def plot(runs: dict[Method, list[s3d.GrowthStep]], seed: int, frame: pd.DataFrame, path: Path) -> None:
    """Draw the four panels: the losses of all seeds, the rest of one seed's runs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 8.5), layout="constrained")
    _losses(axes[0, 0], frame, BY_COPIES, "(a) number of copies, c = 3")
    _losses(axes[0, 1], frame, BY_C, "(b) binary splittings, by c")
    _mark_first_difference(axes[0, 1], runs, frame)
    _curves(axes[1, 0], {method: runs[method] for method in BY_COPIES}, seed)
    _choice(axes[1, 1], runs[BINARY], seed)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _losses(axis: Axes, frame: pd.DataFrame, methods: list[Method], title: str) -> None:
    """Draw the median of all seeds; the band is from the first to the third quartile.

    A run that ended early, since nothing gained any more, keeps its loss.
    """
    for method in methods:
        own = frame[frame["method"] == method.name]
        losses = own.pivot(index="neurons", columns="seed", values="loss").ffill()
        low, middle, high = (losses.quantile(q, axis=1) for q in (0.25, 0.5, 0.75))
        axis.semilogy(middle.index, middle, marker="o", markersize=4, color=method.color, label=method.name)
        axis.fill_between(middle.index, low, high, color=method.color, alpha=0.15, linewidth=0)
    axis.set(title=title, xlabel="neurons", ylabel="training loss at the end of the phase")
    axis.legend()


def _mark_first_difference(axis: Axes, runs: dict[Method, list[s3d.GrowthStep]], frame: pd.DataFrame) -> None:
    """Put a triangle where signed splitting first does something that S2D would not do, with the seed of `runs`."""
    for method in BY_C[1:]:
        step = _first_difference(runs[method])
        if step is not None:
            neurons = step.widths["neurons"]
            height = frame[(frame["method"] == method.name) & (frame["neurons"] == neurons)]["loss"].median()
            axis.plot(neurons, height, "^", markersize=11, color=method.color)


def _first_difference(steps: list[s3d.GrowthStep]) -> s3d.GrowthStep | None:
    return next((s for s in steps if (p := plan_of(s)) is not None and bool(p.weights["neurons"].min() < 0)), None)


def _curves(axis: Axes, runs: dict[Method, list[s3d.GrowthStep]], seed: int) -> None:
    inputs, targets, _ = problem(seed)
    order = inputs[:, 0].argsort()
    axis.plot(inputs[order, 0], targets[order, 0], color="0.6", linewidth=5, label="target")
    for method, steps in runs.items():
        step = min(steps, key=lambda s: (abs(s.widths["neurons"] - 5), s.step))
        with torch.no_grad():
            fitted = step.model(inputs)
        label = f"{method.name}, {step.widths['neurons']} neuron" + "s" * (step.widths["neurons"] > 1)
        axis.plot(inputs[order, 0], fitted[order, 0], color=method.color, label=label)
    axis.set(title="(c) fitted curves at about five neurons", xlabel="x", ylabel="f(x)")
    axis.legend()


def _choice(axis: Axes, steps: list[s3d.GrowthStep], seed: int) -> None:
    """Show the spectra where the two methods first choose differently, and what they choose."""
    step = _first_difference(steps) or steps[-2]
    inputs, targets, _ = problem(seed)
    order = inputs[:, 0].argsort()
    decision: Any = step.decision  # every step but the last has one
    spectrum, theta = decision.evidence["neurons"], step.model.get_submodule("neurons")
    centers = (-theta.get_parameter("bias") / theta.get_parameter("weight")[:, 0]).detach().numpy()
    axis.bar(centers, spectrum.lambda_max.numpy(), width=0.18, color=BLUE, label="lambda_max")
    axis.bar(centers, spectrum.lambda_min.numpy(), width=0.18, color=ORANGE, label="lambda_min")
    low, high = min(float(spectrum.lambda_min.min()), 0), max(float(spectrum.lambda_max.max()), 0)
    curves = axis.twinx()
    curves.plot(inputs[order, 0], targets[order, 0], color="0.75", linewidth=4, label="target")
    graph = s3d.trace(step.model, inputs)
    for name, c, color in (("S3D", 3.0, BLUE), ("S2D", 1.0, ORANGE)):
        plan = s3d.select(decision.evidence, graph, s3d.TopK(1), 2, c=c)
        if not plan.neurons:
            continue
        chosen = int(plan.copies["neurons"].argmax())
        negative = bool(plan.weights["neurons"].min() < 0)
        tip = float((spectrum.lambda_max if negative else spectrum.lambda_min)[chosen])
        place = (float(centers[chosen]), tip + (0.25 if tip > 0 else -0.25) * (high - low))
        arrow = {"arrowstyle": "->", "color": color}
        axis.annotate(
            f"{name} splits", (float(centers[chosen]), tip), place, color=color, ha="center", arrowprops=arrow
        )
        grown = s3d.split(step.model, graph, plan, epsilon=SHOWN_EPSILON).model
        with torch.no_grad():
            curves.plot(inputs[order, 0], grown(inputs)[order, 0], "--", color=color, label=f"after {name}")
    axis.set(
        title=f"(d) what is split next at width {step.widths['neurons']}, m = 2",
        xlabel="centre of the neuron, x",
        ylabel="eigenvalue",
    )
    axis.set(xlim=(-RANGE, RANGE), ylim=(low - 0.4 * (high - low), high + 0.6 * (high - low)))
    curves.set_ylabel(f"f(x), split with epsilon = {SHOWN_EPSILON}")
    handles = [*axis.get_legend_handles_labels()[0], *curves.get_legend_handles_labels()[0]]
    axis.legend(handles=handles, fontsize=8, ncols=2)


def main(arguments: list[str] | None = None) -> None:
    names = [method.name for method in METHODS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="the figure needs all of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--neurons", type=int, default=TARGET_NEURONS, help="stop at this size")
    parser.add_argument("--iterations", type=int, default=10_000, help="steps of Adam per phase and new neuron")
    parser.add_argument("--out", type=Path, default=Path("reports/rbf_toy"))
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    methods = [method for method in METHODS if method.name in parsed.methods]
    shown = parsed.seeds[0] if methods == METHODS else None
    first: dict[Method, list[s3d.GrowthStep]] = {}
    frames = []
    for seed, method in tqdm(list(product(parsed.seeds, methods)), desc="runs", disable=None):
        kept = parsed.out / f"seed_{seed}" / f"{file_name(method.name)}_{parsed.neurons}_{parsed.iterations}.csv"
        if seed == shown or not kept.exists():
            steps = run(method, seed, parsed.neurons, parsed.iterations)
            table = rows(method, seed, parsed.iterations, steps)
            write(table, kept, list(table[0]))
            if seed == shown:
                first[method] = steps
        frames.append(pd.read_csv(kept, engine="python"))
    frame = pd.concat(frames)
    frame.to_csv(parsed.out / "rbf_toy.csv", index=False)
    print(frame.groupby(["method", "seed"], sort=False)["loss"].last().unstack().to_string(float_format="%.1e"))
    print(parsed.out / "rbf_toy.csv")
    if shown is not None:
        plot(first, shown, frame, parsed.out / "rbf_toy.png")
        print(parsed.out / "rbf_toy.png")


if __name__ == "__main__":
    main()
