"""A disk that is full, and one that cannot be written: real ones, of a few kilobytes, in memory."""

import subprocess
from contextlib import contextmanager

import pytest

from nni_s3d.errors import StoreError
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from nni_s3d.search.verification import verify
from tests import small_task
from tests.killed import content


@contextmanager
def disk(folder, kilobytes):
    """Mount a file system of this size, or skip the test where that is not allowed."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no program mount")
    if done.returncode:
        pytest.skip(f"expected to be allowed to mount a disk, got {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk_ends_lineages_in_one_line_and_they_go_on_when_there_is_room(tmp_path, caplog):
    path = small_task.write(tmp_path, steps=2, lineages=[{"c": 1.3}, {"c": 1}])
    expected = list(run(read_experiment(path), Store(str(tmp_path / "whole"))))
    place = tmp_path / "disk"
    with disk(place, 150):
        ended = list(run(read_experiment(path), Store(str(place / "s"))))
        assert ended.count((ended[-1][0], None)) == 2  # tried again once
        assert "No space left on device" in caplog.text
        assert not list(place.rglob("*.tmp"))
        assert not any(trouble for _, trouble in verify(Store(str(place / "s"))))
        remount(place, "size=10m")
        assert list(run(read_experiment(path), Store(str(place / "s")))) == expected
        assert content(place / "s") == content(tmp_path / "whole")


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path):
    path, place = small_task.write(tmp_path, steps=1), tmp_path / "disk"
    with disk(place, 1000):
        remount(place, "ro")
        with pytest.raises(StoreError, match=r"expected a place to read and write, got OSError: .*Read-only"):
            list(run(read_experiment(path), Store(str(place / "s"))))
        remount(place, "rw")
        steps = list(run(read_experiment(path), Store(str(place / "s"))))
        remount(place, "ro")
        with pytest.raises(StoreError, match="Read-only"):
            list(run(read_experiment(small_task.write(tmp_path, steps=2)), Store(str(place / "s"))))
        assert all(metrics is not None for _, metrics in steps)
