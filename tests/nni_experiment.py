"""An experiment of NNI's in a home of its own, with real processes, which a test may kill."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from nni_s3d.report.nni_experiments import ENDED, find_experiment
from tests.browser import until

ROOT = Path(__file__).parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as in the process of the tests, so that results are the same to the bit
_STARTS = 3  # NNI waits three seconds for its server, and then gives up
NNICTL = str(Path(sys.executable).parent / "nnictl")


class Experiment:
    """What nnictl starts, stops and resumes; `with` stops it in any case."""

    def __init__(self, home: Path, config: dict[str, Any], **environment: str) -> None:
        self.home, self.id = home, ""
        self.path = home / "experiment.yml"
        self.path.write_text(yaml.safe_dump(config))
        self.environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), **ONE_THREAD, **environment}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"

    def __enter__(self) -> "Experiment":
        for _ in range(_STARTS):
            printed = self.nnictl("create", "--config", str(self.path), "--port", str(free_port()))
            if (found := re.search(r"nnictl stop (\w+)", printed)) is not None:
                self.id = found[1]
                return self
        raise AssertionError(printed)

    def __exit__(self, *_: object) -> None:
        self.nnictl("stop", "--all")  # those of this home
        for pid in (*self.trials(), *self.tuners(), *self.managers()):
            kill(pid)

    def resume(self) -> None:
        """Resume it, on another port."""
        for _ in range(_STARTS):
            printed = self.nnictl("resume", self.id, "--port", str(free_port()))
            if self.status not in ENDED:
                return
        raise AssertionError(printed)

    def nnictl(self, *words: str) -> str:
        """Return what nnictl prints."""
        done = subprocess.run([NNICTL, *words], env=self.environment, capture_output=True, text=True, cwd=self.home)
        return done.stdout + done.stderr

    @property
    def folder(self) -> Path:
        """Where NNI keeps it."""
        return self.home / "nni-experiments" / self.id

    @property
    def store(self) -> Path:
        """Where it keeps its artefacts."""
        return self.folder / "store"

    @property
    def status(self) -> str:
        """What NNI calls its state."""
        return find_experiment(self.id, self.home / "nni-experiments").status

    def managers(self) -> list[int]:
        """Return the processes of NNI's manager."""
        return self._processes(lambda words, _: any(word.endswith("main.js") for word in words))

    def tuners(self) -> list[int]:
        """Return the processes of the tuner."""
        return self._processes(lambda words, told: told.get("SDK_PROCESS") == "dispatcher" and "python" in words[0])

    def trials(self) -> list[int]:
        """Return the processes of trials."""
        return self._processes(lambda words, _: "nni_s3d.plugin.trial" in words and "python" in words[0])

    def _processes(self, wanted: Callable[[list[str], dict[str, str]], bool]) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                told = dict(pair.split("=", 1) for pair in _words(process / "environ") if "=" in pair)
                words = _words(process / "cmdline")
            except OSError:  # it has ended
                continue
            if words and told.get("HOME") == str(self.home) and wanted(words, told):
                found.append(int(process.name))
        return found


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def kill(pid: int) -> None:
    """End a process, and wait until it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def _words(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
