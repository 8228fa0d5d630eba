"""Reports of NNI experiments, from small databases with the schema of NNI 3.0."""

import ast
import io
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from nni_s3d.errors import ReportError, S3DError
from nni_s3d.report import command as command_module
from nni_s3d.report import files, nni_database
from nni_s3d.report import follow as follow_module
from nni_s3d.report import table as table_module
from nni_s3d.report.command import command
from nni_s3d.report.files import write
from nni_s3d.report.follow import follow
from nni_s3d.report.nni_database import find, read_trials
from nni_s3d.report.table import best, read, si, table
from nni_s3d.tasks.search_space import RESERVED

SCHEMA = """
create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
    sequenceId integer, message text, environmentId text);
create index TrialJobEvent_trialJobId on TrialJobEvent(trialJobId);
create index TrialJobEvent_event on TrialJobEvent(event);
create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer, data text);
create index MetricData_trialJobId on MetricData(trialJobId);
create index MetricData_type on MetricData(type);
create table ExperimentProfile (params text, id text, execDuration integer, startTime integer, endTime integer,
    logDir text, nextSequenceId integer, revision integer);
create index ExperimentProfile_id on ExperimentProfile(id);
"""
START = 1_795_474_971_226
NAN = math.nan


class Nni:
    """Writes what NNI writes for one experiment; seconds count from its start."""

    def __init__(self, root: Path, name: str = "abcd1234", status: str = "DONE", **entry: object) -> None:
        self.root, self.name = root, name
        self.set_status(status, **entry)
        self.database = Path(self.entry["logDir"], name, "db", "nni.sqlite")
        self.database.parent.mkdir(parents=True)
        self.execute(SCHEMA)

    @property
    def entry(self) -> dict[str, object]:
        return json.loads((self.root / ".experiment").read_text())[self.name]

    def set_status(self, status: str, **more: object) -> None:
        path = self.root / ".experiment"
        entries = json.loads(path.read_text()) if path.exists() else {}
        new = {"id": self.name, "port": 8080, "startTime": START, "endTime": "N/A", "platform": "local", "tag": []}
        new |= {"experimentName": "", "pid": os.getpid(), "webuiUrl": [], "logDir": str(self.root), "prefixUrl": None}
        entries[self.name] = new | entries.get(self.name, {}) | more | {"status": status}
        path.write_text(json.dumps(entries, indent=4))

    def execute(self, script: str) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(script)

    def _insert(self, name: str, *values: object) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(f"insert into {name} values ({','.join('?' * len(values))})", values)

    def event(self, trial: str, event: str, at: float, number: int | None = None, parameters: object = None) -> None:
        data = None
        if parameters is not None:
            data = {"parameter_id": number, "parameter_source": "algorithm", "parameters": parameters}
            data = json.dumps(data | {"parameter_index": 0})
        folder = f"{self.root}/{self.name}/environments/local-env/trials/{trial}"
        when = START + round(1000 * at)
        self._insert("TrialJobEvent", when, trial, event, data, folder, number, None, "local-env")

    def metric(self, trial: str, number: int, value: object, kind: str = "FINAL") -> None:
        self._insert("MetricData", START, trial, str(number), kind, 0, json.dumps(json.dumps(value)))

    def trial(self, number: int, parameters: object, value: object, end: float, status: str = "SUCCEEDED") -> str:
        """Write a whole trial, which runs for ten seconds."""
        trial = f"trial{number}"
        self.event(trial, "RUNNING", end - 10, number, parameters)
        self.metric(trial, number, 0.1, "PERIODICAL")
        if value is not None:
            self.metric(trial, number, value)
        if status != "RUNNING":
            self.event(trial, status, end, number)
        return trial


def spec(step: int, lineage: str = "c1.3-m2-s0", width: int = 8) -> dict[str, object]:
    return {"conv0": width, "step": step, "lineage": lineage, "params": 9, "macs": 90}


def metrics(accuracy: float, step: int = 0, test: float = 0.5, size: int = 1000) -> dict[str, float]:
    cost = {"params": size, "macs": 40 * size, "flops": 90 * size, "train_macs": 10_000 * size}
    return {"default": accuracy, "test_accuracy": test, "loss": 1 - accuracy, **cost, "step": step}


@pytest.fixture
def growth(tmp_path):
    """Two lineages that grow side by side, one with a failure and a trial that still runs."""
    nni = Nni(tmp_path, status="RUNNING")
    nni.trial(0, spec(0), metrics(0.6, 0, test=0.9), end=20)
    nni.trial(1, spec(0, "c1-m2-s0"), metrics(0.5, 0), end=19)
    nni.trial(2, spec(1, width=12), metrics(0.8, 1, test=0.7, size=1500), end=40)
    nni.trial(3, spec(1, "c1-m2-s0"), None, end=30, status="FAILED")
    nni.trial(4, spec(2, width=20), None, end=60, status="RUNNING")
    return nni


@pytest.fixture
def plain(tmp_path):
    """Five trials of a strategy that proposes widths."""
    nni = Nni(tmp_path)
    for number, accuracy in enumerate([0.4, 0.7, 0.6, 0.9, 0.8]):
        widths = {"conv0": 4 + number, "pw1": 8.0}
        nni.trial(number, widths, metrics(accuracy, size=1000 * (1 + number)), end=20 + number)
    return nni


# reading


def test_trials_of_a_nas_experiment_are_read_by_their_samples(tmp_path):
    nni = Nni(tmp_path)
    frozen = {"status": "frozen", "model_kwargs": {"task": "task.yml"}}
    nni.trial(0, {**frozen, "sample": spec(1, width=12)}, metrics(0.8, 1), end=20)
    nni.trial(1, {**frozen, "sample": {"conv0": 8, **dict.fromkeys(RESERVED)}}, metrics(0.7), end=30)
    frame = read(experiments_dir=tmp_path)
    assert list(frame["lineage"]) == ["c1.3-m2-s0", ""]
    assert list(frame["step"]) == [1, 0]
    assert list(frame["widths"]) == ['{"conv0": 12}', '{"conv0": 8}']


def test_read_lists_trials_in_the_order_of_their_ends(growth):
    frame = read(experiments_dir=growth.root)
    columns = "experiment trial sequence lineage step accuracy test_accuracy loss params macs flops train_macs"
    assert list(frame.columns) == [*columns.split(), "search_macs", "status", "seconds", "widths"]
    assert list(frame["trial"]) == ["trial1", "trial0", "trial3", "trial2", "trial4"]
    assert list(frame["sequence"]) == [1, 0, 3, 2, 4]
    assert list(frame["status"]) == ["SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED", "RUNNING"]
    assert list(frame["lineage"]) == ["c1-m2-s0", "c1.3-m2-s0", "c1-m2-s0", "c1.3-m2-s0", "c1.3-m2-s0"]
    assert list(frame["step"]) == [0, 0, 1, 1, 2]
    assert set(frame["experiment"]) == {"abcd1234"}


def test_read_gives_the_metrics_of_finished_trials_and_what_the_search_has_paid(growth):
    frame = read("abcd1234", growth.root)
    expected = {
        "accuracy": [0.5, 0.6, NAN, 0.8, NAN],
        "test_accuracy": [0.5, 0.9, NAN, 0.7, NAN],
        "params": [1000, 1000, NAN, 1500, NAN],
        "macs": [40_000, 40_000, NAN, 60_000, NAN],
        "flops": [90_000, 90_000, NAN, 135_000, NAN],
        "train_macs": [1e7, 1e7, NAN, 1.5e7, NAN],
        "search_macs": [1e7, 2e7, NAN, 3.5e7, NAN],
        "seconds": [10, 10, 10, 10, NAN],
    }
    for column, values in expected.items():
        assert list(frame[column]) == pytest.approx(values, nan_ok=True), column
    assert json.loads(frame["widths"][3]) == {"conv0": 12}


def test_read_takes_plain_widths(plain):
    frame = read(experiments_dir=plain.root)
    assert list(frame["lineage"]) == [""] * 5
    assert frame["widths"][2] == '{"conv0": 6, "pw1": 8}'  # whole numbers, though quniform gives 8.0
    assert list(frame["search_macs"]) == [1e7, 3e7, 6e7, 1e8, 1.5e8]


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
    frame = read(experiments_dir=tmp_path)
    assert frame["accuracy"][0] == pytest.approx(accuracy, nan_ok=True)
    assert frame["loss"][0] == pytest.approx(loss, nan_ok=True)
    assert math.isnan(frame["params"][0])


def test_the_first_of_several_final_results_counts(tmp_path):
    nni = Nni(tmp_path)
    trial = nni.trial(0, {"conv0": 4}, metrics(0.4), end=20)
    nni.metric(trial, 0, metrics(0.9))
    assert read(experiments_dir=tmp_path)["accuracy"][0] == 0.4


@pytest.mark.parametrize("status", ["FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"])
def test_a_trial_that_did_not_succeed_has_no_metrics(tmp_path, status):
    nni = Nni(tmp_path)
    nni.trial(0, spec(0), metrics(0.9), end=20, status=status)
    nni.trial(1, spec(0), metrics(0.5), end=30)
    frame = read(experiments_dir=tmp_path)
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
    lineages = {trial.id: trial.parameters.get("lineage") for trial in read_trials(find(None, tmp_path))}
    assert lineages == {"first": "b", "second": "a", "silent": None, "late": "c"}
    assert list(read(experiments_dir=tmp_path)["lineage"]) == ["b", "a", "", "c"]


def test_a_silent_trial_has_the_parameters_it_was_created_with(tmp_path):
    nni = Nni(tmp_path)
    nni.event("dead", "RUNNING", 0, 7, spec(3))
    nni.event("dead", "FAILED", 1, 7)
    assert read_trials(find(None, tmp_path))[0].parameters == spec(3)


def test_a_resumed_trial_counts_once_and_from_its_second_start(tmp_path):
    nni = Nni(tmp_path)
    nni.event("again", "RUNNING", 0, 0, spec(0, "a"))
    nni.metric("again", 1, 0.1, "PERIODICAL")  # swapped before, right after
    nni.event("again", "ADD_RESUMED", 100)
    (waiting,) = read_trials(find(None, tmp_path))
    assert waiting.ended is None
    nni.event("again", "RUNNING", 105, 0, spec(0, "a"))
    nni.metric("again", 0, metrics(0.7))
    nni.event("again", "SUCCEEDED", 112.5, 0)
    frame = read(experiments_dir=tmp_path)
    assert (len(frame), frame["seconds"][0], frame["lineage"][0], frame["sequence"][0]) == (1, 7.5, "a", 0)


def test_a_trial_without_end_in_an_ended_experiment_was_stopped(growth):
    growth.set_status("STOPPED")
    assert list(read(experiments_dir=growth.root)["status"])[-1] == "STOPPED"


def test_events_of_no_trial_are_passed_over(plain):
    plain.event("", "ADD_CUSTOMIZED", 0)
    plain.event("", "IMPORT_DATA", 0)
    plain.event("trial4", "ADD_HYPERPARAMETER", 99)
    assert list(read(experiments_dir=plain.root)["status"]) == ["SUCCEEDED"] * 5


# finding


def test_the_latest_is_the_one_started_or_resumed_last(tmp_path):
    Nni(tmp_path, "older", startTime=5)
    Nni(tmp_path, "resumed", startTime=9)
    Nni(tmp_path, "newer", startTime=7)
    assert find(None, tmp_path).id == "resumed"
    assert find("older", tmp_path).id == "older"


def test_an_experiment_may_keep_its_files_elsewhere(tmp_path):
    nni = Nni(tmp_path, logDir=str(tmp_path / "elsewhere"))
    nni.trial(0, spec(0), metrics(0.5), end=20)
    assert find(None, tmp_path).database == tmp_path / "elsewhere" / "abcd1234" / "db" / "nni.sqlite"
    assert len(read(experiments_dir=tmp_path)) == 1


def test_a_copied_folder_needs_no_list(plain, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(plain.root / "abcd1234", copy / "abcd1234")
    assert find("abcd1234", copy).status == "STOPPED"
    assert len(read("abcd1234", copy)) == 5


def test_the_default_folder_is_in_the_home(plain, monkeypatch, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(plain.root, home / "nni-experiments", ignore=shutil.ignore_patterns("home"))
    monkeypatch.setenv("HOME", str(home))
    assert len(read()) == 5


@pytest.mark.parametrize("status", ["RUNNING", "NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL", "STOPPED", "DONE", "ERROR"])
def test_status_is_nnis(tmp_path, status):
    Nni(tmp_path, status=status)
    assert find(None, tmp_path).status == status


def test_a_killed_manager_leaves_a_stopped_experiment(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    Nni(tmp_path, status="RUNNING", pid=process.pid)
    assert find(None, tmp_path).status == "STOPPED"


# errors


def test_no_experiment_at_all(tmp_path):
    with pytest.raises(ReportError, match=r"\.experiment: expected an NNI experiment, found none"):
        read(experiments_dir=tmp_path)


@pytest.mark.parametrize("name", ["nope", "../abcd1234", ""])
def test_an_unknown_id(plain, name):
    with pytest.raises(ReportError, match=r"experiment '.*': expected it in .*\.experiment, found abcd1234"):
        read(name, plain.root)


def test_no_finished_trial(tmp_path):
    nni = Nni(tmp_path, status="RUNNING")
    nni.trial(0, spec(0), None, end=20, status="FAILED")
    nni.trial(1, spec(0), None, end=30, status="RUNNING")
    message = r"abcd1234 \(RUNNING\): .*nni.sqlite: expected a finished trial, found 1 FAILED, 1 RUNNING; see .*trial0/"
    with pytest.raises(ReportError, match=message):
        read(experiments_dir=tmp_path)


@pytest.mark.parametrize("state", ["no file", "no tables", "no rows"])
def test_an_experiment_that_is_only_starting(tmp_path, state):
    nni = Nni(tmp_path, status="RUNNING")
    if state != "no rows":
        nni.database.unlink()
    if state == "no tables":
        nni.database.touch()
    with pytest.raises(ReportError, match="found no trial"):
        read(experiments_dir=tmp_path)


def test_something_else_in_place_of_the_database(plain, monkeypatch):
    monkeypatch.setattr(nni_database, "_PAUSE", 0)
    plain.database.write_bytes(b"something else" * 100)
    with pytest.raises(ReportError, match=r"nni.sqlite: expected a database of NNI's, got: file is not a database"):
        read(experiments_dir=plain.root)


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_something_else_in_place_of_the_list(plain, monkeypatch, content):
    monkeypatch.setattr(nni_database, "_PAUSE", 0)
    (plain.root / ".experiment").write_text(content)
    with pytest.raises(ReportError, match=r"\.experiment: expected NNI's list of experiments, got: "):
        read(experiments_dir=plain.root)


# reading while NNI writes


def test_a_list_that_is_half_written_is_read_again(plain, monkeypatch):
    path = plain.root / ".experiment"
    whole = path.read_text()
    path.write_text(whole[:40])
    monkeypatch.setattr(nni_database.time, "sleep", lambda seconds: path.write_text(whole))
    assert find(None, plain.root).id == "abcd1234"


def test_a_database_in_write_ahead_mode(plain):
    with closing(sqlite3.connect(plain.database)) as writer:
        writer.execute("pragma journal_mode = wal")
        writer.execute("delete from MetricData where trialJobId = 'trial4'")
        writer.commit()
        assert plain.database.with_name("nni.sqlite-wal").exists()
        assert read(experiments_dir=plain.root)["accuracy"].notna().sum() == 4


def test_a_locked_database(plain, monkeypatch):
    monkeypatch.setattr(nni_database, "_LOCK_TIMEOUT", 0.0)
    with closing(sqlite3.connect(plain.database, isolation_level=None)) as writer:
        writer.execute("begin exclusive")
        assert len(read(experiments_dir=plain.root)) == 5


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
    assert list(read("abcd1234", killed)["accuracy"]) == [0.4, 0.7, 0.6, 0.9, 0.8]
    assert database.read_bytes() == before


# the table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(NAN, "-"), (0, "0"), (950, "950"), (1000, "1.00k"), (30_211, "30.2k"), (431_000, "431k")],
        *[(1_203_456, "1.20M"), (3.45e9, "3.45G"), (1.2e13, "12.0T"), (7e15, "7.00P")],
    ],
)
def test_si_units(value, text):
    assert si(value) == text


def test_the_table_marks_the_best_validation_accuracy(growth):
    lines = table(read(experiments_dir=growth.root)).splitlines()
    assert lines[0].split() == "trial lineage step accuracy test loss params MACs search MACs time status".split()
    assert [line.split()[1] for line in lines[2:-1] if line.startswith("*")] == ["trial2"]  # test prefers trial0
    assert lines[5].split() == "* trial2 c1.3-m2-s0 1 0.8000 0.7000 0.2 1.50k 60.0k 35.0M 0:00:10 SUCCEEDED".split()
    assert lines[4].split() == "trial3 c1-m2-s0 1 - - - - - - 0:00:10 FAILED".split()
    assert len({line.rindex(" ") for line in lines[:7]}) == 1  # the last column is aligned
    assert max(map(len, lines)) < 120
    assert "never used to choose" in lines[-1]


def test_the_table_leaves_out_what_nobody_reported(tmp_path):
    nni = Nni(tmp_path)
    nni.trial(0, {"conv0": 4}, 0.25, end=20)
    assert table(read(experiments_dir=tmp_path)).splitlines()[0].split() == ["trial", "accuracy", "time", "status"]


def test_the_first_of_equals_is_the_best(plain):
    frame = read(experiments_dir=plain.root)
    frame["accuracy"] = [0.4, 0.9, 0.6, 0.9, NAN]
    assert best(frame) == 1
    frame["accuracy"] = NAN
    assert best(frame) is None
    assert "\n*  trial" not in table(frame)


# the files


def drawn(frame: pd.DataFrame) -> list[dict[str, list[tuple[float, float]]]]:
    """Return by panel the points of every line by its label."""
    panels = files._figure(frame).axes
    return [{str(line.get_label()): list(line.get_xydata()) for line in axes.get_lines()} for axes in panels]


def test_write_gives_a_csv_and_a_png(growth, tmp_path):
    frame = read(experiments_dir=growth.root)
    files = write(frame, tmp_path / "new" / "folder")
    assert files.csv.parent == files.png.parent == tmp_path / "new" / "folder"
    back = pd.read_csv(files.csv, keep_default_na=False, na_values={c: [""] for c in frame.select_dtypes("number")})
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    assert ",1000,40000,90000,10000000,10000000," in files.csv.read_text()
    assert files.png.read_bytes().startswith(b"\x89PNG")


def test_the_plot_has_a_line_for_every_lineage(growth):
    params, macs, search = drawn(read(experiments_dir=growth.root))
    assert set(params) == set(macs) == set(search) == {"c1-m2-s0", "c1.3-m2-s0", "best on validation"}
    assert [tuple(point) for point in params["c1.3-m2-s0"]] == [(1000, 0.6), (1500, 0.8)]
    assert [tuple(point) for point in search["c1.3-m2-s0"]] == [(2e7, 0.6), (3.5e7, 0.8)]
    assert [tuple(point) for point in macs["best on validation"]] == [(60_000, 0.8)]


def test_the_plot_has_the_running_best_of_plain_widths(plain):
    params, macs, search = drawn(read(experiments_dir=plain.root))
    assert set(params) == set(macs) == {"trials", "best on validation"}
    assert [y for _, y in search["trials"]] == [0.4, 0.7, 0.6, 0.9, 0.8]
    assert [y for _, y in search["best so far"]] == [0.4, 0.7, 0.7, 0.9, 0.9]


def test_the_axes_of_the_plot_have_units(plain):
    frame = read(experiments_dir=plain.root)
    frame["params"] *= [1, 2, 3, 4, 40]
    params, macs, search = files._figure(frame).axes
    assert [axes.get_xlabel().split()[0] for axes in (params, macs, search)] == ["parameters", "MACs", "search"]
    assert params.get_xscale() == "log"  # more than a decade
    assert macs.get_xscale() == "linear"
    assert params.xaxis.get_major_formatter()(20_000) == "20k"


def test_a_panel_without_numbers_says_so(tmp_path):
    Nni(tmp_path).trial(0, {"conv0": 4}, 0.25, end=20)
    panels = files._figure(read(experiments_dir=tmp_path)).axes
    assert [axes.texts[0].get_text() for axes in panels] == ["not reported"] * 3


def test_without_matplotlib_the_numbers_are_written_all_the_same(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(S3DError, match=r'pip install "nni_s3d\[plots\]" \(the numbers are in .*trials.csv\)'):
        write(read(experiments_dir=plain.root), tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 5


# following a running experiment


class Script:
    """In place of time.sleep: does one thing after another, then ends the experiment."""

    def __init__(self, *actions) -> None:
        self.actions = list(actions)
        self.calls = 0

    def __call__(self, seconds: float) -> None:
        self.calls += 1
        if self.actions:
            self.actions.pop(0)()


@pytest.mark.parametrize("end", ["DONE", "STOPPED", "ERROR"])
def test_follow_returns_at_the_end(growth, end):
    script = Script(lambda: growth.set_status("NO_MORE_TRIAL"), lambda: growth.set_status(end))
    assert follow(None, growth.root, script) == end
    assert script.calls == 2


def test_follow_returns_when_nothing_comes_any_more(growth):
    def finish():
        growth.metric("trial4", 4, metrics(0.9))
        growth.event("trial4", "SUCCEEDED", 70, 4)

    growth.set_status("TUNER_NO_MORE_TRIAL")
    script = Script(lambda: None, lambda: None, finish)
    assert follow(None, growth.root, script) == "TUNER_NO_MORE_TRIAL"
    assert script.calls == 3 + follow_module._QUIET_POLLS


def test_follow_waits_for_the_next_growth_step(plain):
    plain.set_status("TUNER_NO_MORE_TRIAL")
    quiet = [lambda: None] * (follow_module._QUIET_POLLS - 1)
    step = [lambda: plain.event("next", "RUNNING", 50, 9, spec(1))]
    end = [lambda: plain.event("next", "SUCCEEDED", 60, 9)]
    script = Script(*quiet, *step, *quiet, *quiet, *end)
    follow(None, plain.root, script)
    assert not script.actions
    assert read(experiments_dir=plain.root)["trial"].iloc[-1] == "next"


def test_follow_does_not_take_the_start_for_the_end(tmp_path):
    nni = Nni(tmp_path, status="TUNER_NO_MORE_TRIAL")
    script = Script(*[lambda: None] * 20, lambda: nni.set_status("STOPPED"))
    assert follow(None, tmp_path, script) == "STOPPED"


def test_follow_shows_one_line_on_a_terminal(growth, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = {}
    for kind in (Terminal, io.StringIO):
        monkeypatch.setattr(sys, "stderr", kind())
        growth.set_status("RUNNING")
        follow(None, growth.root, Script(lambda: growth.set_status("DONE")))
        shown[kind] = sys.stderr.getvalue()
    assert re.search(r"abcd1234: 3 finished, \d\d:\d\d, RUNNING, best accuracy 0\.8000", shown[Terminal])
    assert shown[Terminal].count("\n") == 1
    assert shown[io.StringIO] == ""


# the command


def test_the_command_prints_the_table_and_where_the_files_are(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(None, True, None, plain.root) == 0
    *lines, csv, png = capsys.readouterr().out.splitlines()
    assert "\n".join(lines) == table(read(experiments_dir=plain.root))
    assert Path(csv) == Path("reports", "abcd1234", "trials.csv")
    assert Path(csv).exists()
    assert Path(png).exists()
    assert command("abcd1234", True, tmp_path / "out", plain.root) == 0
    assert (tmp_path / "out" / "report.png").exists()


@pytest.mark.parametrize(("wait", "status", "waits"), [(True, "RUNNING", 1), (False, "RUNNING", 0), (True, "DONE", 0)])
def test_the_command_waits_if_asked(growth, tmp_path, monkeypatch, wait, status, waits):
    growth.set_status(status)
    followed = []
    monkeypatch.setattr(command_module, "follow", lambda *arguments: followed.append(arguments))
    command(None, wait, tmp_path / "out", growth.root)
    assert followed == [("abcd1234", growth.root)] * waits


# imports


@pytest.mark.parametrize("module", [table_module, files, follow_module, command_module, nni_database])
def test_a_report_needs_neither_nni_nor_torch(module):
    tree = ast.parse(Path(module.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {"nni", "torch"} & {name.split(".")[0] for name in names}
    ours = {name for name in names if name.split(".")[0] == "nni_s3d"}
    assert {name for name in ours if not name.startswith("nni_s3d.report.")} <= {
        "nni_s3d.errors",
        "nni_s3d.search.spec",
    }


def test_matplotlib_is_imported_only_to_plot():
    program = "import sys, nni_s3d.report.table; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_place_that_is_no_folder_is_named(growth, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ReportError, match="file: expected a folder to write to, got: "):
        write(read(experiments_dir=growth.root), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
