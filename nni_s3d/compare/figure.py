"""The figure of a comparison: what every strategy has reached at every size, and after every cost of search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from nni_s3d.compare.fronts import reached
from nni_s3d.report.files import COLORS, format_axis, save

_PANELS = {"params": "parameters", "macs": "MACs per sample", "search_macs": "search cost (MACs of training so far)"}
_POINTS = 200
_BANDS = 4  # strategies whose bands can still be told from each other


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw test accuracy against parameters, MACs and search cost: the mean over the seeds.

    At every place stands the best network on validation that is as small, or was found as early. Few strategies have a
    band of one deviation.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5.4), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for axes, (cost, label) in zip(panels, _PANELS.items(), strict=True):
        at = np.geomspace(rows[cost].min(), rows[cost].max(), _POINTS)
        for index, (strategy, found) in enumerate(rows.groupby("strategy", sort=False)):
            curves = 100 * np.stack([reached(of_seed, cost, at) for _, of_seed in found.groupby("seed")])
            known = np.isfinite(curves).all(axis=0)  # from where all seeds have a network
            mean, deviation = curves[:, known].mean(axis=0), curves[:, known].std(axis=0)
            color, style = COLORS[index % len(COLORS)], ("-", "--", ":")[index // len(COLORS) % 3]
            axes.step(at[known], mean, style, where="post", color=color, linewidth=2, label=strategy)
            if rows["strategy"].nunique() <= _BANDS:
                axes.fill_between(at[known], mean - deviation, mean + deviation, step="post", color=color, alpha=0.12)
        format_axis(axes, rows[cost], label)
    panels[0].set_ylabel("test accuracy (%) of the best on validation", fontsize=13)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), fontsize=12, frameon=False)
    save(figure, path)
