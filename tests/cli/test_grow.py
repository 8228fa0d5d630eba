import json

import pytest

from nni_s3d.cli import main
from tests import small_task
from tests.cli.one_line import one_line


def test_grow_prints_a_line_per_step(tmp_path, capsys):
    assert main(["grow", str(small_task.write(tmp_path, steps=1)), "--store", str(tmp_path / "s")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["c1.3-m2-s0 step 0", "c1.3-m2-s0 step 1", "artefacts"]
    assert "accuracy 0." in lines[0]


def test_grow_prints_json(tmp_path, capsys, monkeypatch):
    path = small_task.write(tmp_path, steps=1)
    assert main(["grow", str(path), "--store", str(tmp_path / "s"), "--json"]) == 0
    printed = capsys.readouterr()
    first, second = map(json.loads, printed.out.splitlines())
    assert (first["lineage"], first["step"], second["step"]) == ("c1.3-m2-s0", 0, 1)
    assert {"conv0", "params", "macs", "default", "test_accuracy", "train_macs"} <= first.keys()
    assert printed.err.splitlines()[-1] == f"artefacts: {tmp_path / 's'}"
    monkeypatch.setattr("nni_s3d.search.planning.decide", lambda *_, **__: 1 / 0)
    assert main(["grow", str(path), "--store", str(tmp_path / "t"), "--json"]) == 1
    failures = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(line["step"], line["failed"]) for line in failures] == 2 * [(0, True)]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("foo://bar", "foo://bar: expected a place to read and write, got ValueError: Protocol not known: foo"),
        ("zip://none.zip", "zip://none.zip: expected a place to read and write, got"),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:1/x/task.json: expected a place to read and write, got"),
        ("FILE", "task.json: expected a place to read and write, got NotADirectoryError"),
        ("FILE/x", "task.json: expected a place to read and write, got NotADirectoryError"),
    ],
)
def test_a_place_that_is_no_store_is_one_line_and_exit_code_2(tmp_path, capsys, place, message):
    path = small_task.write(tmp_path)
    assert main(["grow", str(path), "--store", place.replace("FILE", str(path))]) == 2
    one_line(capsys.readouterr().err, message)


@pytest.mark.parametrize("place", ["task.json", "lineages"])
def test_a_store_that_is_none_is_one_line_and_exit_code_2(tmp_path, capsys, place):
    path = small_task.write(tmp_path)
    (tmp_path / "s").mkdir()
    if place == "task.json":
        (tmp_path / "s" / place).mkdir()
    else:
        (tmp_path / "s" / place).write_text("")
    assert main(["grow", str(path), "--store", str(tmp_path / "s")]) == 2
    one_line(capsys.readouterr().err, "expected a place to read and write, got ")
    assert not list(tmp_path.rglob("*.tmp"))
