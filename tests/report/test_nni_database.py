import math
import shutil
import sqlite3
from contextlib import closing

import pytest

from nni_s3d.errors import ReportError
from nni_s3d.report import nni_database
from nni_s3d.report.nni_database import read_config, read_trials
from nni_s3d.report.nni_experiments import find_experiment
from nni_s3d.report.table import read_frame
from tests.report.fake_nni import Nni, metrics, spec

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "accuracy", "loss"),
    [
        (0.25, 0.25, NAN),
        ({"default": 0.25}, 0.25, NAN),
        ({"default": 0.25, "loss": 2, "note": "text", "list": [1]}, 0.25, 2),
        ({"default": NAN, "loss": math.inf}, NAN, NAN),
        ("text", NAN, NAN),
        (None, NAN, NAN),
    ],
)
def test_missing_metrics_are_nan(tmp_path, value, accuracy, loss):
    nni = Nni(tmp_path)
    nni.trial(0, {"conv0": 4}, value, end=20)
    frame = read_frame(experiments_dir=tmp_path)
    assert frame["accuracy"][0] == pytest.approx(accuracy, nan_ok=True)
    assert frame["loss"][0] == pytest.approx(loss, nan_ok=True)
    assert math.isnan(frame["params"][0])


def test_the_first_of_several_final_results_counts(tmp_path):
    nni = Nni(tmp_path)
    trial = nni.trial(0, {"conv0": 4}, metrics(0.4), end=20)
    nni.metric(trial, 0, metrics(0.9))
    assert read_frame(experiments_dir=tmp_path)["accuracy"][0] == 0.4


@pytest.mark.parametrize("status", ["FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"])
def test_a_trial_that_did_not_succeed_has_no_metrics(tmp_path, status):
    nni = Nni(tmp_path)
    nni.trial(0, spec(0), metrics(0.9), end=20, status=status)
    nni.trial(1, spec(0), metrics(0.5), end=30)
    frame = read_frame(experiments_dir=tmp_path)
    assert list(frame["status"]) == [status, "SUCCEEDED"]
    assert math.isnan(frame["accuracy"][0])
    assert frame["search_macs"][1] == 1e7


def test_metrics_tell_which_parameters_a_trial_ran_with(tmp_path):
    # NNI hands waiting parameters to whichever trial asks first, and its record of the trial does not tell.
    nni = Nni(tmp_path, status="RUNNING")
    nni.event("first", "RUNNING", 0, 0, spec(1, "a"))
    nni.event("second", "RUNNING", 0, 1, spec(1, "b"))
    nni.event("silent", "RUNNING", 0, 2, spec(1, "c"))
    nni.event("late", "RUNNING", 0, 3, spec(1, "d"))
    nni.metric("first", 1, metrics(0.5))
    nni.metric("second", 0, 0.1, "PERIODICAL")
    nni.metric("late", 2, 0.1, "PERIODICAL")
    nni.event("first", "SUCCEEDED", 10, 0)
    lineages = {trial.id: trial.parameters.get("lineage") for trial in read_trials(find_experiment(None, tmp_path))}
    assert lineages == {"first": "b", "second": "a", "silent": None, "late": "c"}
    assert list(read_frame(experiments_dir=tmp_path)["lineage"]) == ["b", "a", "", "c"]


def test_a_silent_trial_has_the_parameters_it_was_created_with(tmp_path):
    nni = Nni(tmp_path)
    nni.event("dead", "RUNNING", 0, 7, spec(3))
    nni.event("dead", "FAILED", 1, 7)
    assert read_trials(find_experiment(None, tmp_path))[0].parameters == spec(3)


def test_a_resumed_trial_counts_once_and_from_its_second_start(tmp_path):
    nni = Nni(tmp_path)
    nni.event("again", "RUNNING", 0, 0, spec(0, "a"))
    nni.metric("again", 1, 0.1, "PERIODICAL")  # swapped before, right after
    nni.event("again", "ADD_RESUMED", 100)
    (waiting,) = read_trials(find_experiment(None, tmp_path))
    assert waiting.ended is None
    nni.event("again", "RUNNING", 105, 0, spec(0, "a"))
    nni.metric("again", 0, metrics(0.7))
    nni.event("again", "SUCCEEDED", 112.5, 0)
    frame = read_frame(experiments_dir=tmp_path)
    assert (len(frame), frame["seconds"][0], frame["lineage"][0], frame["sequence"][0]) == (1, 7.5, "a", 0)


def test_a_trial_without_end_in_an_ended_experiment_was_stopped(growth):
    growth.set_status("STOPPED")
    assert list(read_frame(experiments_dir=growth.root)["status"])[-1] == "STOPPED"


def test_events_of_no_trial_are_passed_over(plain):
    plain.event("", "ADD_CUSTOMIZED", 0)
    plain.event("", "IMPORT_DATA", 0)
    plain.event("trial4", "ADD_HYPERPARAMETER", 99)
    assert list(read_frame(experiments_dir=plain.root)["status"]) == ["SUCCEEDED"] * 5


@pytest.mark.parametrize("state", ["no file", "no tables", "no rows"])
def test_an_experiment_that_is_only_starting(tmp_path, state):
    nni = Nni(tmp_path, status="RUNNING")
    if state != "no rows":
        nni.database.unlink()
    if state == "no tables":
        nni.database.touch()
    with pytest.raises(ReportError, match="found no trial"):
        read_frame(experiments_dir=tmp_path)


def test_something_else_in_place_of_the_database(plain, monkeypatch):
    monkeypatch.setattr(nni_database, "_PAUSE", 0)
    plain.database.write_bytes(b"something else" * 100)
    with pytest.raises(ReportError, match=r"nni.sqlite: expected a database of NNI's, got: file is not a database"):
        read_frame(experiments_dir=plain.root)


def test_a_database_in_write_ahead_mode(plain):
    with closing(sqlite3.connect(plain.database)) as writer:
        writer.execute("pragma journal_mode = wal")
        writer.execute("delete from MetricData where trialJobId = 'trial4'")
        writer.commit()
        assert plain.database.with_name("nni.sqlite-wal").exists()
        assert read_frame(experiments_dir=plain.root)["accuracy"].notna().sum() == 4


def test_a_locked_database(plain, monkeypatch):
    monkeypatch.setattr(nni_database, "_LOCK_TIMEOUT", 0.0)
    with closing(sqlite3.connect(plain.database, isolation_level=None)) as writer:
        writer.execute("begin exclusive")
        assert len(read_frame(experiments_dir=plain.root)) == 5


def test_the_journal_of_a_killed_writer_is_rolled_back_in_a_copy(plain, tmp_path):
    killed = tmp_path / "killed"
    with closing(sqlite3.connect(plain.database, isolation_level=None)) as writer:
        writer.execute("pragma cache_size = 1")  # so that an unfinished transaction is on disk already
        writer.execute("begin")
        writer.execute("update MetricData set data = '\"0\"'")
        writer.executemany("insert into MetricData values (0, 'x', '0', 'FINAL', 0, ?)", [("y" * 2000,)] * 50)
        shutil.copytree(plain.root / "abcd1234", killed / "abcd1234")
    database = killed / "abcd1234" / "db" / "nni.sqlite"
    before = database.read_bytes()
    assert database.with_name("nni.sqlite-journal").stat().st_size > 0
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        nni_database._select(database)
    assert list(read_frame("abcd1234", killed)["accuracy"]) == [0.4, 0.7, 0.6, 0.9, 0.8]
    assert database.read_bytes() == before


def test_the_latest_configuration_counts(plain):
    experiment = find_experiment(None, plain.root)
    assert read_config(experiment) == {}
    for revision, concurrency in enumerate([1, 3]):
        plain.config({"trialConcurrency": concurrency}, revision)
    assert read_config(experiment) == {"trialConcurrency": 3}


@pytest.mark.parametrize("table", ["MetricData", "ExperimentProfile"])
def test_tables_that_are_not_there_yet_have_no_rows(plain, table):
    plain.config({"trialConcurrency": 1})
    plain.execute(f"drop table {table}")
    experiment = find_experiment(None, plain.root)
    assert read_config(experiment) == {}
    assert len(read_trials(experiment)) == (5 if table == "ExperimentProfile" else 0)
