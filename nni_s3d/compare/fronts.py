"""Fronts of accuracy against cost, and how two of them compare.

Networks are chosen by validation accuracy alone; what a front is worth is told by the test accuracy of its networks.
"""

from __future__ import annotations

import moocore
import numpy as np
import pandas as pd


def front(rows: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the networks that no other one beats in both validation accuracy and cost, the cheapest first."""
    points = np.stack([rows[cost], -rows["accuracy"]], axis=1).astype(float)
    return rows[moocore.is_nondominated(points)].sort_values(cost, kind="stable")


def hypervolume(rows: pd.DataFrame, cost: str, least: float, most: float) -> float:
    """Return the mean over sizes from `least` to `most`, in logarithms, of what the front has reached at that size.

    That is the hypervolume of its points (log cost, test accuracy), as a part of that of a front of accuracy 1.
    """
    chosen = front(rows, cost)
    at = np.log(chosen[cost].to_numpy(float) / least) / np.log(most / least)
    return float(moocore.hypervolume(np.stack([at, -chosen["test_accuracy"]], axis=1), ref=[1.0, 0.0]))


def coverage(ours: pd.DataFrame, theirs: pd.DataFrame, cost: str) -> float:
    """Return the fraction of their front that ours dominates: no more cost, no less test accuracy, one of them better.

    It is the measure C of Zitzler and Thiele (1999), without equal points.
    """
    a, b = (front(rows, cost)[[cost, "test_accuracy"]].to_numpy(float) for rows in (ours, theirs))
    no_worse = (a[:, None, 0] <= b[None, :, 0]) & (a[:, None, 1] >= b[None, :, 1])
    better = (a[:, None, 0] < b[None, :, 0]) | (a[:, None, 1] > b[None, :, 1])
    return float((no_worse & better).any(axis=0).mean())


def reached(rows: pd.DataFrame, cost: str, at: np.ndarray) -> np.ndarray:
    """Return the test accuracy of the best network on validation with at most each cost, NaN where there is none."""
    ordered = rows.sort_values(cost, kind="stable")
    best_before = ordered["accuracy"].cummax().shift(fill_value=-np.inf)
    chosen = ordered["test_accuracy"].where(ordered["accuracy"] > best_before).ffill().to_numpy(float)
    place = np.searchsorted(ordered[cost].to_numpy(float), at, side="right") - 1
    return np.where(place >= 0, chosen[place.clip(min=0)], np.nan)
