import json
import sys
from pathlib import Path

import pytest

from nni_s3d.errors import ConfigError, ReportError, S3DError
from nni_s3d.report import command as command_module
from nni_s3d.report.command import command
from nni_s3d.report.table import read_frame, table
from tests.fresh_process import loaded_by


def test_the_command_prints_the_table_and_where_the_files_are(plain, tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert command([], experiments_dir=plain.root) == 0
    *lines, csv, png, page = capsys.readouterr().out.splitlines()
    assert "\n".join(lines) == table(read_frame(experiments_dir=plain.root))
    assert [Path(path).name for path in (csv, png, page)] == ["trials.csv", "report.png", "report.html"]
    assert Path(csv) == Path("reports", "abcd1234", "trials.csv")
    assert all(Path(path).exists() for path in (csv, png, page))
    assert command(["abcd1234"], out=tmp_path / "out", experiments_dir=plain.root) == 0
    assert (tmp_path / "out" / "report.png").exists()


def test_several_have_a_folder_each_and_one_page(experiment, finished, tmp_path, capsys):
    assert command(["abcd1234", str(finished[0])], out=tmp_path / "out", experiments_dir=experiment.root) == 0
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    of_each = {f"{name}/{file}" for name in ("abcd1234", "store") for file in ("trials.csv", "report.png")}
    assert written == {"report.html", *of_each}
    with pytest.raises(ConfigError, match="report: expected different experiments, got a, a"):
        command(["a", "a"])


def test_json_is_a_line_for_every_trial_and_no_more(growth, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command([], wait=False, as_json=True, experiments_dir=growth.root) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["trial"] for row in rows] == list(read_frame(experiments_dir=growth.root)["trial"])
    assert rows[-1]["accuracy"] is None
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(("status", "code"), [("ERROR", 1), ("STOPPED", 0), ("DONE", 0)])
def test_what_has_stopped_may_be_resumed(growth, tmp_path, caplog, status, code):
    growth.set_status(status)
    assert command([], out=tmp_path / "out", experiments_dir=growth.root) == code
    assert ("nnictl resume abcd1234 goes on" in caplog.text) == (status != "DONE")
    assert ("after an error" in caplog.text) == (status == "ERROR")


@pytest.mark.parametrize(("wait", "status", "waits"), [(True, "RUNNING", 1), (False, "RUNNING", 0), (True, "DONE", 0)])
def test_the_command_waits_if_asked(growth, tmp_path, monkeypatch, wait, status, waits):
    growth.set_status(status)
    followed = []
    monkeypatch.setattr(command_module, "follow", lambda *arguments: followed.append(arguments))
    command([], wait, tmp_path / "out", experiments_dir=growth.root)
    assert followed == [("abcd1234", growth.root)] * waits


def test_the_live_page_is_served_at_a_port(plain, monkeypatch):
    live = pytest.importorskip("nni_s3d.report.live", reason="plotly, of the extra plots, is not installed")
    served = []
    monkeypatch.setattr(live, "serve", lambda *arguments: served.append(arguments))
    with pytest.raises(ReportError, match="experiment 'x': expected it in"):
        command(["x"], live=8123, experiments_dir=plain.root)
    assert command(["abcd1234"], live=8123, experiments_dir=plain.root) == 0
    assert served == [(["abcd1234"], 8123, plain.root)]


def test_a_missing_package_is_named(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nni_s3d.report.page", None)
    with pytest.raises(S3DError, match=r'the page needs nni_s3d.report.page: pip install "nni_s3d\[plots\]"'):
        command([], out=tmp_path, experiments_dir=plain.root)
    assert (tmp_path / "trials.csv").exists()


def test_a_report_needs_neither_nni_nor_torch_nor_matplotlib_to_start():
    modules = loaded_by("import nni_s3d.report.command")
    rooms = {path.stem for path in Path(command_module.__file__).parent.glob("[a-z]*.py")} - {"charts", "page", "live"}
    assert {f"nni_s3d.report.{room}" for room in rooms} <= modules
    assert not {"nni", "torch", "matplotlib", "plotly"} & modules
