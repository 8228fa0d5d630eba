"""Experiments that are killed: a process of its own, which ends itself with SIGKILL at a point that was drawn.

Points are before, after and in the middle of the writing and the renaming of each file, and after each epoch. So
nothing here rests on how fast a machine is.
"""

import multiprocessing
import os
import random
import signal
from pathlib import Path
from unittest import mock

from fsspec.implementations.local import LocalFileSystem

from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from nni_s3d.tasks import training

NOTES = (".trial.json", "state.json")  # which tell who has run which trial, and where a lineage is


def content(folder: Path) -> dict[str, bytes]:
    """Return what a store holds, but for the notes on how it came about."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(NOTES))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def points_of(config: Path, folder: Path) -> int:
    """Run an experiment to its end, and return how many points it passes."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(config, folder, 0, 0.0, sender))
    process.start()
    process.join()
    assert process.exitcode == 0
    return int(receiver.recv())


def run_killed(config: Path, folder: Path, points: int, seed: int) -> list[str]:
    """Run an experiment that is killed again and again until it is through; return at which points.

    Args:
        config: the experiment file.
        folder: of the store.
        points: how many an undisturbed run passes.
        seed: of the draw.
    """
    draw, names = random.Random(seed), []
    context = multiprocessing.get_context("fork")
    while True:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (config, folder, draw.randint(1, points), draw.random(), sender)
        process = context.Process(target=_run, args=arguments)
        process.start()
        process.join()
        if process.exitcode == 0:
            return names
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        names.append(receiver.recv())


class _Points:
    """Counts the points that a process passes, and kills it at the one that was drawn."""

    def __init__(self, number: int, sender: object) -> None:
        self.left, self.sender = number, sender

    def drawn(self) -> bool:
        self.left -= 1
        return self.left == 0

    def die(self, name: str) -> None:
        self.sender.send(name)
        os.kill(os.getpid(), signal.SIGKILL)

    def passed(self, name: str) -> None:
        if self.drawn():
            self.die(name)


def _run(config: Path, folder: Path, number: int, share: float, sender: object) -> None:
    points = _Points(number, sender)
    pipe_file, mv, epoch = LocalFileSystem.pipe_file, LocalFileSystem.mv, training._epoch

    def written(fs, path, data, **options):
        points.passed("before a file is written")
        if points.drawn():
            pipe_file(fs, path, data[: int(share * len(data))])
            points.die("in the middle of writing a file")
        pipe_file(fs, path, data, **options)
        points.passed("before a file is renamed")

    def moved(fs, source, target, **options):
        if points.drawn():  # the name has come to the disk, the content not all of it
            pipe_file(fs, target, fs.cat_file(source)[: int(share * fs.size(source))])
            points.die("in the middle of renaming a file")
        mv(fs, source, target, **options)
        points.passed("after a file is renamed")

    def trained(*args):
        loss = epoch(*args)
        points.passed("after an epoch")
        return loss

    with (
        mock.patch.object(LocalFileSystem, "pipe_file", written),
        mock.patch.object(LocalFileSystem, "mv", moved),
        mock.patch.object(training, "_epoch", trained),
    ):
        list(run(read_experiment(config), Store(str(folder))))
    sender.send(-points.left)
