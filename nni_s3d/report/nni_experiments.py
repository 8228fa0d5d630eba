"""The experiments of NNI 3.0, as it lists them in its own files.

    ~/nni-experiments/.experiment    JSON: id -> status, port, pid, startTime, logDir of every experiment

Nothing is ever written there, and an experiment may run meanwhile.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni_s3d.errors import ReportError

ENDED = frozenset({"DONE", "STOPPED", "ERROR", "VIEWED"})  # what NNI calls an experiment in which nothing will happen
_ATTEMPTS = 20  # NNI writes its list in place, so it may be found half written
_PAUSE = 0.1  # seconds between attempts


@dataclass(frozen=True)
class NNIExperiment:
    """One experiment as NNI lists it."""

    id: str
    name: str
    status: str  # INITIALIZED, RUNNING, NO_MORE_TRIAL, TUNER_NO_MORE_TRIAL, STOPPING, or one of ENDED
    port: int | None  # of the web UI, where there is one
    folder: Path

    @property
    def database(self) -> Path:
        """Where its trials are."""
        return self.folder / "db" / "nni.sqlite"


def find_experiment(experiment_id: str | None = None, experiments_dir: Path | None = None) -> NNIExperiment:
    """Return one experiment, by default the one that was started or resumed last.

    Args:
        experiment_id: as `nnictl create` prints it.
        experiments_dir: where NNI keeps its list (default: ~/nni-experiments).

    Raises:
        ReportError: there is none, or none of this id.
    """
    folder = experiments_dir or Path.home() / "nni-experiments"  # whatever working directory an experiment has
    entries = _read_list(folder / ".experiment")
    # Milliseconds have 13 digits until the year 2286, so they sort as text.
    newest = sorted(entries, key=lambda key: str(entries[key].get("startTime") or ""), reverse=True)
    if experiment_id is None:
        if not newest:
            raise ReportError(f"{folder / '.experiment'}: expected an NNI experiment, found none")
        experiment_id = newest[0]
    entry = entries.get(experiment_id)
    if entry is not None:
        return _listed(experiment_id, entry, folder)
    # A folder that was copied from another machine is in no list.
    unlisted = NNIExperiment(experiment_id, "", "STOPPED", None, folder / experiment_id)
    if Path(experiment_id).name != experiment_id or not os.path.exists(unlisted.database):
        listed = ", ".join(newest[:5]) + (", ..." if len(newest) > 5 else "") or "none"
        raise ReportError(f"experiment {experiment_id!r}: expected it in {folder / '.experiment'}, found {listed}")
    return unlisted


def _read_list(path: Path) -> dict[str, dict[str, Any]]:
    for attempt in range(_ATTEMPTS):
        try:
            entries = json.loads(path.read_text())
            if not isinstance(entries, dict):
                raise ValueError(f"a {type(entries).__name__}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            if attempt == _ATTEMPTS - 1:
                raise ReportError(f"{path}: expected NNI's list of experiments, got: {error}") from error
            time.sleep(_PAUSE)
        else:
            break
    return {key: entry for key, entry in entries.items() if isinstance(entry, dict) and key.isprintable()}


def _listed(experiment_id: str, entry: dict[str, Any], folder: Path) -> NNIExperiment:
    status = str(entry.get("status", "INITIALIZED"))
    if status not in ENDED and not _alive(entry.get("pid")):
        status = "STOPPED"  # the manager was killed and could not say so; nnictl does the same
    root = Path(str(entry.get("logDir") or folder), experiment_id)
    if not os.path.exists(root):  # unlike Path.exists, it bears any name
        root = folder / experiment_id
    return NNIExperiment(experiment_id, str(entry.get("experimentName") or ""), status, entry.get("port"), root)


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
