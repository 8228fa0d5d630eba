from nni_s3d.cli import main
from nni_s3d.report import command as command_module
from tests.cli.one_line import one_line


def test_the_options_are_passed_on(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(command_module, "command", lambda *arguments: calls.append(arguments) or 0)
    assert main(["report"]) == 0
    assert main(["report", "abc", "d", "--no-wait", "--out", str(tmp_path), "--json"]) == 0
    assert main(["report", "--live"]) == main(["report", "--live", "99"]) == 0
    assert calls == [
        ([], True, None, None, False),
        (["abc", "d"], False, tmp_path, None, True),
        ([], True, None, 8888, False),
        ([], True, None, 99, False),
    ]


def test_an_unknown_experiment_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["report", "nobody"]) == 2
    one_line(capsys.readouterr().err, "experiment 'nobody': expected it in")
