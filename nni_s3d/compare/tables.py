"""The tables of a comparison: what every strategy has found, and whose front dominates whose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nni_s3d.compare.fronts import coverage, hypervolume
from nni_s3d.growth.text_table import table_lines
from nni_s3d.report.table import si

COSTS = ("params", "macs")


def per_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for every strategy and seed.

    Columns: strategy, seed, trials, the best network on validation (accuracy, test_accuracy, params, macs), search_macs
    (what was spent), and hypervolume_params and hypervolume_macs, see `hypervolume`; sizes range from the smallest to
    the largest of all.
    """
    limits = {cost: (float(rows[cost].min()), float(rows[cost].max())) for cost in COSTS}
    made = []
    for (strategy, seed), found in rows.groupby(["strategy", "seed"], sort=False):
        best = found.loc[found["accuracy"].idxmax()]
        made.append(
            {"strategy": strategy, "seed": seed, "trials": len(found)}
            | {name: best[name] for name in ("accuracy", "test_accuracy", *COSTS)}
            | {"search_macs": found["search_macs"].max()}
            | {
                f"hypervolume_{cost}": hypervolume(found, cost, *limits[cost])
                for cost in COSTS
                if _spread(limits[cost])
            }
        )
    return pd.DataFrame(made)


def best_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the strategy of the largest hypervolume first, the mean over its seeds."""
    seeds = per_seed(rows)
    by = next((name for name in ("hypervolume_macs", "hypervolume_params") if name in seeds), "test_accuracy")
    order = seeds.groupby("strategy", sort=False)[by].mean().sort_values(ascending=False, kind="stable").index
    return rows.sort_values("strategy", key=lambda column: column.map(order.get_loc), kind="stable")


def summary(rows: pd.DataFrame) -> str:
    """Return one line for every strategy, means and deviations over the seeds."""
    seeds = per_seed(rows)
    titles = ["strategy", "seeds", "trials", "search MACs", "test accuracy of the best", "params", "MACs"]
    volumes = [name for name in ("hypervolume_params", "hypervolume_macs") if name in seeds]
    titles += [name.replace("_", ", ").replace("macs", "MACs") for name in volumes]
    lines = []
    for strategy in seeds["strategy"].unique():
        of = seeds[seeds["strategy"] == strategy]
        counts = [si(of[name].mean()) for name in ("search_macs", *COSTS)]
        line = [strategy, str(len(of)), f"{of['trials'].mean():.3g}", counts[0], spread(100 * of["test_accuracy"], 1)]
        lines.append([*line, *counts[1:], *(spread(of[name], 3) for name in volumes)])
    return "\n".join(table_lines(titles, lines, right=set(titles[1:]), ruled=True))


def dominance(rows: pd.DataFrame, cost: str = "macs") -> str:
    """Return how much of the front of each column the front of each row dominates, in percent, mean over the seeds."""
    names = list(dict.fromkeys(rows["strategy"]))
    lines = []
    for ours in names:
        cells = []
        for theirs in names:
            shares = [] if ours == theirs else _shares(rows, ours, theirs, cost)
            cells.append(f"{100 * np.mean(shares):.0f}" if shares else "-")
        lines.append([ours, *cells])
    return "\n".join(table_lines(["dominates %", *names], lines, right=set(names), ruled=True))


def spread(values: Sequence[float] | pd.Series, digits: int) -> str:
    """Return mean and deviation."""
    series = pd.Series(values, dtype=float)
    return f"{series.mean():.{digits}f}" + (f" +- {series.std():.{digits}f}" if len(series) > 1 else "")


def _shares(rows: pd.DataFrame, ours: str, theirs: str, cost: str) -> list[float]:
    """Return the coverage on every seed that both have."""
    by_seed = {name: dict(list(rows[rows["strategy"] == name].groupby("seed"))) for name in (ours, theirs)}
    common = [seed for seed in by_seed[ours] if seed in by_seed[theirs]]
    return [coverage(by_seed[ours][seed], by_seed[theirs][seed], cost) for seed in common]


def _spread(limits: tuple[float, float]) -> bool:
    return limits[0] < limits[1]
