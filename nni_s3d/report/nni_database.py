"""The trials of an experiment of NNI 3.0, as its own database tells of them.

    <logDir>/<id>/db/nni.sqlite    TrialJobEvent (what happened to trials), MetricData (what they reported),
                                   ExperimentProfile (the configuration)

Nothing is ever written there, and the experiment may run meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeGuard

from nni_s3d.errors import ReportError
from nni_s3d.report.nni_experiments import ENDED, NNIExperiment

_TRIAL_ENDED = frozenset({"SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"})
_STATUS_OF_EVENT = {"USER_TO_CANCEL": "USER_CANCELED", "ADD_CUSTOMIZED": "WAITING", "ADD_RESUMED": "WAITING"}
_ATTEMPTS = 3
_PAUSE = 0.1  # seconds between attempts
_LOCK_TIMEOUT = 5.0  # seconds; a commit of NNI's takes milliseconds


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

    @property
    def sample(self) -> dict[str, Any]:
        """The parameters; those of a trial of a NAS experiment are a whole model space, frozen by a sample."""
        sample = self.parameters.get("sample")
        return sample if isinstance(sample, dict) else self.parameters


def read_trials(experiment: NNIExperiment) -> list[NNITrial]:
    """Return all trials: those that have ended in the order of their ends, then the others in the order of creation.

    Raises:
        ReportError: the database cannot be read.
    """
    rows = _read_database(experiment.database)
    parameters: dict[str, dict[str, Any]] = {}  # by parameter id
    histories: dict[str, list[_Event]] = {}  # by trial id
    for event in rows.events:
        content = _loads(event.data)
        if isinstance(content, dict) and isinstance(content.get("parameters"), dict):
            parameters[str(content.get("parameter_id"))] = content["parameters"]
        if event.trial:  # imported data and trials that only wait to be created have none
            histories.setdefault(event.trial, []).append(event)
    reports = _reports(rows.metrics)
    reported = {parameter_id for parameter_id, _ in reports.values()}
    trials = []
    for trial_id, history in histories.items():
        trial = _replay(trial_id, history, experiment.status in ENDED)
        parameter_id, final = reports.get(trial_id) or (_created_with(history, reported), None)
        metrics = _finite_numbers(final) if trial["status"] == "SUCCEEDED" else {}
        trials.append(NNITrial(**trial, parameters=parameters.get(parameter_id, {}), metrics=metrics))
    return sorted(trials, key=lambda trial: (trial.ended is None, trial.ended or 0, trial.sequence))


def read_config(experiment: NNIExperiment) -> dict[str, Any]:
    """Return the configuration of an experiment with NNI's keys, empty where the database has none.

    Raises:
        ReportError: the database cannot be read.
    """
    profiles = _read_database(experiment.database).profiles
    config = _loads(profiles[-1]) if profiles else None
    return config if isinstance(config, dict) else {}


# -- rows ------------------------------------------------------------------------------------------------------------


class _Event(NamedTuple):
    trial: str
    name: str
    timestamp: int  # ms since 1970
    data: str | None  # JSON
    sequence: int | None
    folder: str | None


class _Metric(NamedTuple):
    trial: str
    kind: str
    parameter_id: str
    data: str  # JSON within JSON


class _Rows(NamedTuple):
    events: Sequence[_Event] = ()
    metrics: Sequence[_Metric] = ()
    profiles: Sequence[str] = ()  # JSON


# SQLite lets every cell hold anything; after the casts it is of the type above, or null.
_EVENTS = """
select cast(trialJobId as text), cast(event as text), cast(timestamp as integer), cast(data as text),
    cast(sequenceId as integer), cast(logPath as text)
from TrialJobEvent where trialJobId is not null and event is not null and timestamp between 0 and 8640000000000000
order by rowid"""  # the last moment that JavaScript knows
_METRICS = """
select cast(trialJobId as text), cast(type as text), cast(parameterId as text), cast(data as text)
from MetricData order by rowid"""
_PROFILES = "select cast(params as text) from ExperimentProfile order by revision"


def _read_database(database: Path) -> _Rows:
    """Return the rows of the tables; none while an experiment is only starting."""
    trouble: Exception | None = None
    for _ in range(_ATTEMPTS):
        if not os.path.exists(database):  # unlike Path.exists, it bears any name
            return _Rows()
        for read in (_select, _select_from_copy):
            try:
                return read(database)
            except (OSError, sqlite3.Error, UnicodeError) as error:
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
            return _Rows()
        profiles = connection.execute(_PROFILES) if "ExperimentProfile" in tables else ()
        return _Rows(
            [_Event(*row) for row in connection.execute(_EVENTS)],
            [_Metric(*row) for row in connection.execute(_METRICS)],
            [params for (params,) in profiles],
        )


# -- what they mean --------------------------------------------------------------------------------------------------


def _reports(metrics: Sequence[_Metric]) -> dict[str, tuple[str, Any]]:
    """Return by trial the id of the parameters that it ran with, and its final result or None.

    NNI hands the parameters of waiting trials to whichever asks first, so a trial may run with those of another one
    that was created at the same time. Its record of the trial does not tell; the metrics do. Of several final results
    NNI counts the first.
    """
    reports: dict[str, tuple[str, Any]] = {}
    for metric in metrics:
        if reports.get(metric.trial, ("", None))[1] is None:
            final = _loads(_loads(metric.data)) if metric.kind == "FINAL" else None
            reports[metric.trial] = str(metric.parameter_id), final
    return reports


def _created_with(history: Sequence[_Event], reported: set[str]) -> str:
    """Return the id of the parameters that a silent trial was created with, unless another one ran with them."""
    contents = (_loads(event.data) for event in reversed(history))
    created = next((content for content in contents if isinstance(content, dict)), {})
    parameter_id = str(created.get("parameter_id"))
    return "" if parameter_id in reported else parameter_id


def _replay(trial_id: str, history: Sequence[_Event], experiment_ended: bool) -> dict[str, Any]:
    """Return the fields of a trial that follow from its events, as NNI's own interface derives them."""
    steps = [(_STATUS_OF_EVENT.get(e.name, e.name), e.timestamp) for e in history if e.name != "ADD_HYPERPARAMETER"]
    status, last = steps[-1] if steps else ("UNKNOWN", None)
    over = status in _TRIAL_ENDED
    starts = [when for name, when in steps if name == "RUNNING"] or [when for _, when in steps]
    return {
        "id": trial_id,
        "sequence": next((event.sequence for event in history if event.sequence is not None), -1),
        "status": status if over or not experiment_ended else "STOPPED",
        "started": starts[-1] if starts else None,
        "ended": last if over else None,
        "folder": next((event.folder for event in history if event.folder), ""),
    }


def _loads(text: str | None) -> Any:
    """Return what JSON says, or None; only the first event of a trial has parameters."""
    try:
        return json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return None


def _finite_numbers(result: Any) -> dict[str, float]:
    """Return the finite numbers of a final result, which is one number or a mapping with a key `default`."""
    named = result if isinstance(result, dict) else {"default": result}
    return {name: float(value) for name, value in named.items() if is_finite(value)}


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether something that was read from JSON is a number that a float can hold."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
