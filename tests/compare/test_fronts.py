import math

import numpy as np
import pandas as pd
import pytest

from nni_s3d.compare.fronts import coverage, front, hypervolume, reached


def frame(*points):
    """Networks (MACs, validation accuracy, test accuracy)."""
    return pd.DataFrame(points, columns=["macs", "accuracy", "test_accuracy"], dtype=float)


def drawn(seed, n=12):
    generator = np.random.default_rng(seed)
    return frame(*zip(generator.integers(1, 9, n) * 10.0, *generator.integers(1, 9, (2, n)) / 10, strict=True))


def test_a_front_is_chosen_by_validation_alone():
    rows = frame((10, 0.5, 0.1), (20, 0.4, 0.9), (20, 0.6, 0.3), (40, 0.6, 0.9), (5, 0.1, 0.2))
    assert front(rows, "macs").index.tolist() == [4, 0, 2]


@pytest.mark.parametrize("seed", range(20))
def test_a_front_is_what_nothing_dominates(seed):
    rows = drawn(seed).drop_duplicates(["macs", "accuracy"])
    expected = {
        i
        for i, one in rows.iterrows()
        if not any(
            other.macs <= one.macs
            and other.accuracy >= one.accuracy
            and (other.macs < one.macs or other.accuracy > one.accuracy)
            for _, other in rows.iterrows()
        )
    }
    assert set(front(rows, "macs").index) == expected


@pytest.mark.parametrize("seed", range(10))
def test_the_hypervolume_is_the_mean_of_what_is_reached_over_log_sizes(seed):
    rows = drawn(seed)
    chosen = front(rows, "macs")
    at = np.geomspace(10, 100, 20_001)[:-1] * (1 + 1e-9)
    best = [chosen.loc[chosen["macs"] <= size, "test_accuracy"].max() for size in at]
    expected = np.mean([0.0 if math.isnan(value) else value for value in best])
    assert hypervolume(rows, "macs", 10, 100) == pytest.approx(expected, abs=1e-3)


def test_coverage_counts_the_points_that_are_dominated():
    ours = frame((10, 0.5, 0.5), (30, 0.9, 0.9))
    theirs = frame((5, 0.2, 0.2), (10, 0.5, 0.5), (20, 0.55, 0.4), (40, 0.8, 0.8))
    assert coverage(ours, theirs, "macs") == pytest.approx(2 / 4)
    assert coverage(theirs, ours, "macs") == 0
    assert coverage(ours, ours, "macs") == 0


@pytest.mark.parametrize("seed", range(10))
def test_what_is_reached_is_the_test_accuracy_of_the_best_on_validation(seed):
    rows, at = drawn(seed), np.arange(5.0, 100.0, 5.0)
    for size, value in zip(at, reached(rows, "macs", at), strict=True):
        affordable = rows[rows["macs"] <= size].sort_values("macs", kind="stable")
        if affordable.empty:
            assert math.isnan(value)
        else:
            assert value == affordable.loc[affordable["accuracy"].idxmax(), "test_accuracy"]
