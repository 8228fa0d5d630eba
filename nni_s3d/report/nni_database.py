"""Read the experiments of NNI 3.0 from its own files: which there are, and what became of their trials.

    ~/nni-experiments/.experiment         JSON: id -> status, port, pid, startTime, logDir of every experiment
    <logDir>/<id>/db/nni.sqlite           TrialJobEvent (what happened to trials), MetricData (what they reported),
                                          ExperimentProfile (the configuration)

Nothing is ever written there, and an experiment may run meanwhile.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from nni_s3d.errors import ReportError

ENDED = frozenset({"DONE", "STOPPED", "ERROR", "VIEWED"})  # what NNI calls an experiment in which nothing will happen
_TRIAL_ENDED = frozenset({"SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"})
_STATUS_OF_EVENT = {"USER_TO_CANCEL": "USER_CANCELED", "ADD_CUSTOMIZED": "WAITING", "ADD_RESUMED": "WAITING"}
_PAUSE = 0.1  # seconds between attempts
_LIST_ATTEMPTS = 20  # NNI writes its list in place, so it may be found half written
_DATABASE_ATTEMPTS = 3
_LOCK_TIMEOUT = 5.0  # seconds; a commit of NNI's takes milliseconds

_EVENTS = "select trialJobId, event, timestamp, data, sequenceId, logPath from TrialJobEvent order by rowid"
_METRICS = "select trialJobId, type, parameterId, data from MetricData order by rowid"
_PROFILES = "select params from ExperimentProfile order by revision"


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


@dataclass(frozen=True)
class NNITrial:
    """One trial and what it has reported."""

    id: str
    sequence: int
    status: str  # NNI's; STOPPED where the experiment has ended without it
    parameters: dict[str, Any]
    metrics: dict[str, float]  # the final ones; empty unless it has succeeded
    started: int | None  # ms since 1970
    ended: int | None
    folder: str  # with its log and its standard error; "host:path" if remote


def default_folder() -> Path:
    """Return where NNI keeps its list, whatever working directory an experiment has."""
    return Path.home() / "nni-experiments"


def find(experiment_id: str | None = None, experiments_dir: Path | None = None) -> NNIExperiment:
    """Return one experiment, by default the one that was started or resumed last.

    Args:
        experiment_id: as `nnictl create` prints it.
        experiments_dir: where NNI keeps its list (default: ~/nni-experiments).

    Raises:
        ReportError: there is none, or none of this id.
    """
    folder = experiments_dir or default_folder()
    entries = _read_list(folder / ".experiment")
    newest = sorted(entries, key=lambda key: entries[key].get("startTime") or 0, reverse=True)
    if experiment_id is None:
        if not newest:
            raise ReportError(f"{folder / '.experiment'}: expected an NNI experiment, found none")
        experiment_id = newest[0]
    entry = entries.get(experiment_id)
    if entry is not None:
        return _listed(experiment_id, entry, folder)
    # A folder that was copied from another machine is in no list.
    unlisted = NNIExperiment(experiment_id, "", "STOPPED", None, folder / experiment_id)
    if Path(experiment_id).name != experiment_id or not unlisted.database.exists():
        found = ", ".join(newest[:5]) + (", ..." if len(newest) > 5 else "") or "none"
        raise ReportError(f"experiment {experiment_id!r}: expected it in {folder / '.experiment'}, found {found}")
    return unlisted


def read_trials(experiment: NNIExperiment) -> list[NNITrial]:
    """Return all trials: those that have ended in the order of their ends, then the others in the order of creation.

    Raises:
        ReportError: the database cannot be read.
    """
    events, metrics, _ = _read_database(experiment.database)
    parameters: dict[str, dict[str, Any]] = {}  # by parameter id
    histories: dict[str, list[Any]] = {}
    for trial_id, *event in events:
        content = _loads(event[2])
        if isinstance(content, dict) and isinstance(content.get("parameters"), dict):
            parameters[str(content.get("parameter_id"))] = content["parameters"]
        if trial_id:  # imported data and trials that only wait to be created have none
            histories.setdefault(trial_id, []).append(event)
    used = _used(metrics)
    trials = []
    for trial_id, history in histories.items():
        trial = _replay(trial_id, history, experiment.status in ENDED)
        parameter_id, final = used.get(trial_id) or (_own_parameter(history, used), None)
        reported = _numbers(final) if trial["status"] == "SUCCEEDED" else {}
        trials.append(NNITrial(**trial, parameters=parameters.get(parameter_id, {}), metrics=reported))
    return sorted(trials, key=lambda trial: (trial.ended is None, trial.ended or 0, trial.sequence))


def read_config(experiment: NNIExperiment) -> dict[str, Any]:
    """Return the configuration of an experiment with NNI's keys, empty where the database has none.

    Raises:
        ReportError: the database cannot be read.
    """
    rows = _read_database(experiment.database).profiles
    config = _loads(rows[-1][0]) if rows else None
    return config if isinstance(config, dict) else {}


def _read_list(path: Path) -> dict[str, dict[str, Any]]:
    for attempt in range(_LIST_ATTEMPTS):
        try:
            entries = json.loads(path.read_text())
            if not isinstance(entries, dict):
                raise ValueError(f"a {type(entries).__name__}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            if attempt == _LIST_ATTEMPTS - 1:
                raise ReportError(f"{path}: expected NNI's list of experiments, got: {error}") from error
            time.sleep(_PAUSE)
        else:
            break
    return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}


def _listed(experiment_id: str, entry: dict[str, Any], folder: Path) -> NNIExperiment:
    status = str(entry.get("status", "INITIALIZED"))
    if status not in ENDED and not _alive(entry.get("pid")):
        status = "STOPPED"  # the manager was killed and could not say so; nnictl does the same
    root = Path(entry.get("logDir") or folder, experiment_id)
    if not root.exists():
        root = folder / experiment_id
    return NNIExperiment(experiment_id, str(entry.get("experimentName") or ""), status, entry.get("port"), root)


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class _Rows(NamedTuple):
    events: list[Any]
    metrics: list[Any]
    profiles: list[Any]


def _read_database(database: Path) -> _Rows:
    """Return the rows of the tables; none while an experiment is only starting."""
    trouble: Exception | None = None
    for _ in range(_DATABASE_ATTEMPTS):
        if not database.exists():
            return _Rows([], [], [])
        for read in (_select, _select_from_copy):
            try:
                return read(database)
            except (OSError, sqlite3.Error) as error:
                trouble = error
        time.sleep(_PAUSE)
    raise ReportError(f"{database}: expected a database of NNI's, got: {trouble}") from trouble


def _select_from_copy(database: Path) -> _Rows:
    """Read where writing is allowed: what a killed process has left in a journal must be rolled back."""
    with TemporaryDirectory() as folder:
        for path in database.parent.glob(f"{database.name}*"):
            shutil.copy(path, folder)
        return _select(Path(folder, database.name), mode="rw")


def _select(database: Path, mode: str = "ro") -> _Rows:
    uri = f"{database.resolve().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, timeout=_LOCK_TIMEOUT, isolation_level=None, uri=True)) as connection:
        connection.execute("begin")  # all tables as they are at one moment
        tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        if not {"TrialJobEvent", "MetricData"} <= tables:
            return _Rows([], [], [])
        profiles = connection.execute(_PROFILES).fetchall() if "ExperimentProfile" in tables else []
        return _Rows(connection.execute(_EVENTS).fetchall(), connection.execute(_METRICS).fetchall(), profiles)


def _used(metrics: list[Any]) -> dict[str, tuple[str, Any]]:
    """Return by trial the id of the parameters that it ran with, and its final result or None.

    NNI hands the parameters of waiting trials to whichever asks first, so a trial may run with those of another one
    that was created at the same time. Its record of the trial does not tell; the metrics do. Of several final results
    NNI counts the first.
    """
    used: dict[str, tuple[str, Any]] = {}
    for trial_id, kind, parameter_id, data in metrics:
        if kind == "FINAL" and used.get(trial_id, ("", None))[1] is None:
            used[trial_id] = str(parameter_id), _loads(_loads(data))  # JSON within JSON
        elif used.get(trial_id, ("", None))[1] is None:
            used[trial_id] = str(parameter_id), None
    return used


def _own_parameter(history: list[Any], used: dict[str, tuple[str, Any]]) -> str:
    """Return the id of the parameters that a silent trial was created with, unless another one ran with them."""
    content = next((loaded for event in reversed(history) if isinstance(loaded := _loads(event[2]), dict)), {})
    own = str(content.get("parameter_id"))
    return "" if own in {parameter_id for parameter_id, _ in used.values()} else own


def _replay(trial_id: str, history: list[Any], experiment_ended: bool) -> dict[str, Any]:
    """Return the fields of a trial that follow from its events, as NNI's own interface derives them."""
    steps = [(_STATUS_OF_EVENT.get(event, event), when) for event, when, *_ in history if event != "ADD_HYPERPARAMETER"]
    status, last = steps[-1] if steps else ("UNKNOWN", None)
    over = status in _TRIAL_ENDED
    starts = [when for event, when in steps if event == "RUNNING"] or [when for _, when in steps]
    return {
        "id": trial_id,
        "sequence": next((int(event[3]) for event in history if event[3] is not None), -1),
        "status": status if over or not experiment_ended else "STOPPED",
        "started": starts[-1] if starts else None,
        "ended": last if over else None,
        "folder": next((event[4] for event in history if event[4]), ""),
    }


def _loads(text: Any) -> Any:
    """Return what JSON says, or None; only the first event of a trial has parameters."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


def _numbers(result: Any) -> dict[str, float]:
    """Return the finite numbers of a final result, which is one number or a mapping with a key `default`."""
    named = result if isinstance(result, dict) else {"default": result}
    return {name: float(v) for name, v in named.items() if isinstance(v, (int, float)) and math.isfinite(v)}
