from nni_s3d.cli import main
from nni_s3d.plugin import register as register_module


def test_it_says_what_may_be_written_now(monkeypatch, capsys):
    monkeypatch.setattr(register_module, "register", lambda: None)
    assert main(["register"]) == 0
    assert capsys.readouterr().out == "registered: tuner: {name: S3D}\n"
