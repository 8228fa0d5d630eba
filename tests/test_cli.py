import pytest

from nni_s3d.cli import main
from tests import tasks


def test_grow_prints_a_line_per_step(tmp_path, capsys):
    assert main(["grow", str(tasks.write(tmp_path, steps=1)), "--store", str(tmp_path / "s")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["c1.3-m2-s0 step 0", "c1.3-m2-s0 step 1", "artefacts"]
    assert "accuracy 0." in lines[0]


@pytest.mark.parametrize(
    ("class_args", "task", "message"),
    [
        ({"copies": 5}, {}, "copies: expected 2, 3 or 4"),
        ({"policy": {"name": "knapsack", "budget": 10.0}}, {}, "budget: expected at least"),
        ({}, {"data": {"name": "fashion_mnist"}}, "FashionMNIST/raw: expected the four idx files"),
        ({}, {"model": {"factory": "a:b"}}, "model.factory"),
        ({}, {"search_space": "none.json"}, "none.json: expected a search-space file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, class_args, task, message):
    monkeypatch.setenv("NNI_S3D_DATA", str(tmp_path / "nothing"))
    path = tasks.write(tmp_path, task=task, **class_args)
    assert main(["grow", str(path), "--store", str(tmp_path / "s")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("nni-s3d: error: ")
    assert message in error[0]
    assert not list((tmp_path / "s").rglob("metrics.json"))


def test_a_missing_file_is_named(capsys):
    assert main(["grow", "nowhere.yml"]) == 2
    assert "nowhere.yml: expected a file" in capsys.readouterr().err
