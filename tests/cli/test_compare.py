import sys
from pathlib import Path

import pytest

from nni_s3d.cli import main
from tests.cli.one_line import one_line

command_module = pytest.importorskip("nni_s3d.compare.command", reason="moocore, of the extra plots, is not installed")


def test_the_options_are_passed_on(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(command_module, "command", lambda *arguments: calls.append(arguments) or 0)
    words = ["a/s3d.yml", "a/task.yml", "a/task_paper.yml", "a/tpe.yml", "--budget", "12G", "--seeds", "0", "1"]
    assert main(["compare", *words, "--workers", "2", "--out", str(tmp_path), "--json"]) == 0
    assert main(["compare", "--ids", "x", "y"]) == 0
    assert calls == [
        ([Path("a/s3d.yml"), Path("a/tpe.yml")], [], 12e9, [0, 1], 2, tmp_path, True),
        ([], ["x", "y"], None, [0], 1, Path("reports/compare"), False),
    ]


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nni_s3d.compare.command", None)
    assert main(["compare", "x.yml", "--budget", "1G"]) == 2
    one_line(capsys.readouterr().err, 'pip install "nni_s3d[plots]"')
