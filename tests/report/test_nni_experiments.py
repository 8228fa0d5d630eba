import shutil
import subprocess
import sys

import pytest

from nni_s3d.errors import ReportError
from nni_s3d.report import nni_experiments
from nni_s3d.report.nni_experiments import find_experiment
from nni_s3d.report.table import read_frame
from tests.report.fake_nni import Nni, metrics, spec


def test_the_latest_is_the_one_started_or_resumed_last(tmp_path):
    Nni(tmp_path, "older", startTime=5)
    Nni(tmp_path, "resumed", startTime=9)
    Nni(tmp_path, "newer", startTime=7)
    Nni(tmp_path, "unknown", startTime=None)
    assert find_experiment(None, tmp_path).id == "resumed"
    assert find_experiment("older", tmp_path).id == "older"


def test_an_experiment_may_keep_its_files_elsewhere(tmp_path):
    nni = Nni(tmp_path, logDir=str(tmp_path / "elsewhere"))
    nni.trial(0, spec(0), metrics(0.5), end=20)
    assert find_experiment(None, tmp_path).database == tmp_path / "elsewhere" / "abcd1234" / "db" / "nni.sqlite"
    assert len(read_frame(experiments_dir=tmp_path)) == 1


def test_a_copied_folder_needs_no_list(plain, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(plain.root / "abcd1234", copy / "abcd1234")
    assert find_experiment("abcd1234", copy).status == "STOPPED"
    assert len(read_frame("abcd1234", copy)) == 5


def test_the_default_folder_is_in_the_home(plain, monkeypatch, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(plain.root, home / "nni-experiments", ignore=shutil.ignore_patterns("home"))
    monkeypatch.setenv("HOME", str(home))
    assert len(read_frame()) == 5


@pytest.mark.parametrize("status", ["RUNNING", "NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL", "STOPPED", "DONE", "ERROR"])
def test_status_is_nnis(tmp_path, status):
    Nni(tmp_path, status=status)
    assert find_experiment(None, tmp_path).status == status


def test_a_killed_manager_leaves_a_stopped_experiment(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    Nni(tmp_path, status="RUNNING", pid=process.pid)
    assert find_experiment(None, tmp_path).status == "STOPPED"


def test_no_experiment_at_all(tmp_path):
    with pytest.raises(ReportError, match=r"\.experiment: expected an NNI experiment, found none"):
        read_frame(experiments_dir=tmp_path)


@pytest.mark.parametrize("name", ["nope", "../abcd1234", ""])
def test_an_unknown_id(plain, name):
    with pytest.raises(ReportError, match=r"experiment '.*': expected it in .*\.experiment, found abcd1234"):
        read_frame(name, plain.root)


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_something_else_in_place_of_the_list(plain, monkeypatch, content):
    monkeypatch.setattr(nni_experiments, "_PAUSE", 0)
    (plain.root / ".experiment").write_text(content)
    with pytest.raises(ReportError, match=r"\.experiment: expected NNI's list of experiments, got: "):
        read_frame(experiments_dir=plain.root)


def test_a_list_that_is_half_written_is_read_again(plain, monkeypatch):
    path = plain.root / ".experiment"
    whole = path.read_text()
    path.write_text(whole[:40])
    monkeypatch.setattr(nni_experiments.time, "sleep", lambda seconds: path.write_text(whole))
    assert find_experiment(None, plain.root).id == "abcd1234"
