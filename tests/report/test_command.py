from pathlib import Path

import pytest

from nni_s3d.report import command as command_module
from nni_s3d.report.command import command
from nni_s3d.report.table import read_frame, table
from tests.fresh_process import loaded_by


def test_the_command_prints_the_table_and_where_the_files_are(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(None, True, None, plain.root) == 0
    *lines, csv, png = capsys.readouterr().out.splitlines()
    assert "\n".join(lines) == table(read_frame(experiments_dir=plain.root))
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


def test_a_report_needs_neither_nni_nor_torch_nor_matplotlib_to_start():
    modules = loaded_by("import nni_s3d.report.command")
    rooms = {path.stem for path in Path(command_module.__file__).parent.glob("[a-z]*.py")}
    assert {f"nni_s3d.report.{room}" for room in rooms} <= modules
    assert not {"nni", "torch", "matplotlib"} & modules
