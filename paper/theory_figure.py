"""The figure of paper.theory: losses beside their bound, and numbers of neurons beside theirs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

NAMES = {2: "binary", 3: "triplet", 4: "quartet"}
COLORS = {2: "#0072B2", 3: "#009E73", 4: "#CC79A7"}


def neurons_at_most(copies: int, splits: int) -> int:
    """Return how many neurons there are after T splits; binary ones begin with T."""
    return 2 * splits if copies == 2 else 1 + (copies - 1) * splits


def plot(frame: pd.DataFrame, path: Path) -> None:
    """Draw the loss over the splits of the first seed beside its bound, and the neurons of all seeds beside theirs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (losses, counts) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for (copies, training), steps in frame[frame["seed"] == frame["seed"].iloc[0]].groupby(["copies", "training"]):
        label = f"{NAMES[copies]}, {training} steps of descent" if training else f"{NAMES[copies]}, splits alone"
        losses.plot(steps["step"], steps["loss"], "--" if training else "-", color=COLORS[copies], label=label)
        if not training:
            (first, second), end = steps["bound"].iloc[:2], int(steps["splits at most"].iloc[0])
            promised = [(at, first - at * (first - second)) for at in range(end + 1)]
            losses.plot(*zip(*promised, strict=True), ":", color=COLORS[copies])
    losses.set(xscale="symlog", xlabel="splits", ylabel="loss", title="loss, and what it is at most (dotted)")
    losses.legend(fontsize=8, loc="lower left")
    last = frame.groupby(["seed", "copies", "training"]).last().reset_index()
    for copies, runs in last.groupby("copies"):
        for training, marker in ((0, "o"), (runs["training"].max(), "^")):
            some = runs[runs["training"] == training]
            label = f"{NAMES[copies]}, {'with descent' if training else 'splits alone'}"
            counts.plot(some["splits at most"], some["neurons"], marker, color=COLORS[copies], label=label)
        ends = runs["splits at most"].agg(["min", "max"])
        counts.plot(ends, [neurons_at_most(copies, end) for end in ends], ":", color=COLORS[copies])
    counts.set(xscale="log", yscale="log", xlabel="T, splits at most", ylabel="neurons")
    counts.set_title("neurons at the target, and at most (dotted)")
    counts.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
