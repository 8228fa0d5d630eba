import multiprocessing
import os
import time
from pathlib import Path

import pytest

from nni_s3d.search.workers import in_processes


def work(job: tuple[Path, int]) -> None:
    folder, number = job
    if number == 2:
        raise ValueError("two")
    (folder / f"{number}-{os.getpid()}").write_text("")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_and_what_goes_wrong_is_told(tmp_path, workers):
    jobs = [(tmp_path, number) for number in range(4)]
    errors = {job[1]: error for job, error in in_processes(jobs, workers, work)}
    assert {number: str(error) for number, error in errors.items()} == {0: "None", 1: "None", 2: "two", 3: "None"}
    done = [path.name.split("-") for path in tmp_path.iterdir()]
    assert sorted(number for number, _ in done) == ["0", "1", "3"]
    assert (str(os.getpid()) in {process for _, process in done}) == (workers == 1)


def sleep(job: float) -> None:
    time.sleep(job)


def test_meanwhile_is_called_and_leaving_ends_the_workers():
    calls = []
    running = in_processes([0.0, 3600.0], 2, sleep, lambda: calls.append(1))
    assert next(running) == (0.0, None)
    pids = [process.pid for process in multiprocessing.active_children()]
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list(in_processes([0.0, 0.0], 2, sleep, lambda: calls.append(2))) == [(0.0, None)] * 2
    assert 2 in calls
