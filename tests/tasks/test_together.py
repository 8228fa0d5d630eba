import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search import work
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store
from nni_s3d.tasks import ranks
from nni_s3d.tasks.task import read_task
from nni_s3d.tasks.together import call_helpers, together
from nni_s3d.tasks.training import train
from tests import image_folder, small_task
from tests.processes import side_by_side

SEED = dict.fromkeys(small_task.NAMES, 3)


@pytest.fixture
def task(tmp_path):
    small_task.write(tmp_path)
    return read_task(tmp_path / "task.yml")


def test_the_first_process_runs_the_program_and_the_others_train_with_it(task):
    def program():
        data = task.load_data()
        for epochs in (1, 1):
            model = task.build_model(SEED, 7, data.shape)
            recipe = task.training.lasting(epochs)
            call_helpers(SEED, recipe, 7, 8, data)
            train(model, task.training_loader(data, 8), recipe, 7)
        return ranks.rank(), [value.tolist() for value in model.state_dict().values()]

    (rank, weights), nothing = side_by_side(lambda: together(task, program), join=False)
    assert (rank, nothing) == (0, None)
    expected = together(task, program)
    for mine, whole in zip(weights, expected[1], strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(whole), rtol=1e-3, atol=1e-4)


def test_processes_that_cannot_share_a_batch_are_refused_by_the_first(task):
    task = replace(task, training=replace(task.training, batch_size=51))
    error, nothing = side_by_side(lambda: together(task, lambda: "never run"), join=False)
    assert isinstance(error, ConfigError)
    assert str(error) == "training.batch_size: expected a multiple of 2, the number of processes, got 51"
    assert nothing is None


def test_a_last_batch_that_some_get_nothing_of_is_refused(task):
    recipe = replace(task.training, batch_size=149)  # of 150 samples

    def program():
        call_helpers(SEED, recipe, 0, 0, task.load_data())

    error, nothing = side_by_side(lambda: together(task, program), join=False)
    assert isinstance(error, ConfigError)
    expected = "a last batch of at least 2 samples, one for each process, got 1 of 150"
    assert str(error) == f"training.batch_size: expected {expected}"
    assert nothing is None


def write_experiment(folder: Path, workers: int = 0) -> Path:
    """Write an experiment that grows two times on a tiny folder of images."""
    image_folder.write(folder / "images", train=8)
    task = {
        "data": {
            "name": "imagefolder",
            "folder": {"path": str(folder / "images"), "image_size": 28, "workers": workers},
            "validation": 0.25,
            "flip": True,
        },
        "model": {
            "factory": "tests.factories:mobilenet_in_float64",
            "num_classes": 3,
            "in_channels": 3,
            "image_size": 28,
        },
        "training": {
            "epochs": 2,
            "batch_size": 6,
            "lr": 0.1,
            "warmup_epochs": 1,
            "label_smoothing": 0.1,
            "decay_norm_and_bias": False,
        },
        "curvature": {"samples": 13, "batch_size": 6},
    }
    return small_task.write(folder, task, phase_budget="epochs")


def start(path: Path, store: Path) -> subprocess.Popen:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nni_s3d.cli", "grow"]
    return subprocess.Popen(
        [sys.executable, *words, str(path), "--store", str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def process_of(rank: int, parent: int) -> int:
    """Return the process of torchrun that has this rank."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise LookupError(rank)


def outcomes(store: Path) -> list[dict]:
    """Return spec and metrics of every trial, in the order of their steps."""
    keys, read_json = [path.parent.name for path in store.rglob("metrics.json")], Store(str(store)).read_json
    read = [{name: read_json(f"{key}/{name}.json") for name in ("spec", "metrics")} for key in keys]
    return sorted(read, key=lambda outcome: outcome["spec"]["step"])


def assert_same(outcomes, expected):
    assert len(outcomes) == len(expected) == 3
    for outcome, (parameters, metrics) in zip(outcomes, expected, strict=True):
        assert widths_of(outcome["spec"]) == widths_of(parameters)
        assert outcome["metrics"] == pytest.approx(metrics, rel=1e-4)


def test_two_processes_grow_as_one_does(tmp_path):
    experiment, two = read_experiment(write_experiment(tmp_path)), tmp_path / "two"

    def program():
        return len(list(run(experiment, Store(str(two)))))

    assert side_by_side(lambda: together(experiment.task, program), join=False, seconds=120) == [3, None]
    assert_same(outcomes(two), list(run(experiment, Store(str(tmp_path / "one")))))


def test_a_trial_that_fails_ends_all_processes(tmp_path, monkeypatch):
    experiment = read_experiment(write_experiment(tmp_path))

    def full(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(work, "write_checkpoint", full)

    def program():
        return list(run(experiment, Store(str(tmp_path / "two"))))

    first, second = side_by_side(lambda: together(experiment.task, program), join=False, seconds=60)
    assert isinstance(first, StoreError)
    assert isinstance(second, RuntimeError)  # it was waiting for the first one


@pytest.mark.slow
def test_torchrun_ends_if_a_process_is_killed_and_goes_on_when_it_is_started_again(tmp_path):
    path, store = write_experiment(tmp_path, workers=1), tmp_path / "two"
    first = start(path, store)
    deadline = time.monotonic() + 120
    while not list(store.rglob("checkpoint.pt")) or not outcomes(store):  # in the middle of the second network
        assert first.poll() is None, first.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process_of(1, first.pid), signal.SIGKILL)
    said, _ = first.communicate(timeout=60)
    assert first.returncode != 0, said
    assert len(outcomes(store)) < 3
    said, _ = (second := start(path, store)).communicate(timeout=100)
    assert second.returncode == 0, said
    assert_same(outcomes(store), list(run(read_experiment(path), Store(str(tmp_path / "one")))))
