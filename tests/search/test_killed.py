"""Wherever an experiment is killed, the same command goes on and ends as if nothing had happened."""

from pathlib import Path

import pytest

from nni_s3d.search.store import Store
from nni_s3d.search.verification import verify
from tests import small_task
from tests.killed import content, points_of, run_killed

ROOT = Path(__file__).parents[2]
POINTS = {
    "before a file is written",
    "in the middle of writing a file",
    "before a file is renamed",
    "in the middle of renaming a file",
    "after a file is renamed",
    "after an epoch",
}


def without_temporary(found):
    return {name: text for name, text in found.items() if not name.endswith(".tmp")}


def test_an_experiment_that_is_killed_again_and_again_ends_with_the_same_content(tmp_path):
    config = small_task.write(tmp_path, steps=1)
    points = points_of(config, tmp_path / "whole")
    names = [name for seed in range(2) for name in run_killed(config, tmp_path / f"killed{seed}", points, seed)]
    assert len(names) >= 4
    for seed in range(2):
        folder = tmp_path / f"killed{seed}"
        assert without_temporary(content(folder)) == content(tmp_path / "whole")
        assert not any(trouble for _, trouble in verify(Store(str(folder))))


@pytest.mark.slow
def test_the_digits_are_killed_at_a_hundred_points(tmp_path):
    config = ROOT / "configs/digits/s3d.yml"
    points = points_of(config, tmp_path / "whole")
    expected, names, seed = content(tmp_path / "whole"), [], 0
    while len(names) < 100 or {*names} != POINTS:
        folder = tmp_path / f"killed{seed}"
        names += run_killed(config, folder, points, seed)
        seed += 1
        assert without_temporary(content(folder)) == expected
    print(f"{len(names)} kills in {seed} experiments of {points} points; {len(expected)} files the same in each")
