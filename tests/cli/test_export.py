import pytest

from nni_s3d.cli import main
from nni_s3d.export import command as command_module
from tests.cli.one_line import one_line


def test_the_options_are_passed_on(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(command_module, "command", lambda *arguments: calls.append(arguments) or 0)
    to = ["--to", str(tmp_path)]
    assert main(["export", "abc", "--best", *to]) == 0
    assert main(["export", "abc", "--trial", "xyz", *to, "--formats", "onnx", "pt2"]) == 0
    assert main(["export", "abc", "--under-macs", "1.5M", *to, "--store", "s3://s"]) == 0
    assert calls == [
        ("abc", tmp_path, None, None, None, [], None, None),
        ("abc", tmp_path, "xyz", None, None, ["onnx", "pt2"], None, None),
        ("abc", tmp_path, None, 1.5e6, None, [], "s3://s", None),
    ]


def test_one_choice_only(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", "abc", "--best", "--trial", "x", "--to", "x"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_an_unknown_experiment_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["export", "nobody", "--to", str(tmp_path / "x")]) == 2
    one_line(capsys.readouterr().err, "experiment 'nobody': expected it in")
    assert not (tmp_path / "x").exists()
