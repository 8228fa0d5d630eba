from pathlib import Path

import pytest
import yaml

from nni_s3d.cli import main
from nni_s3d.cli.new import KINDS, STARTERS
from tests import image_folder
from tests.cli.one_line import one_line


@pytest.mark.parametrize("kind", ["digits", "own"])
def test_what_is_written_can_be_checked_and_grown(kind, tmp_path, capsys):
    to = tmp_path / kind
    assert main(["new", kind, str(to)]) == 0
    commands = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert commands[0] == ["nni-s3d", "check", str(to / "s3d.yml")]
    assert main(commands[0][1:]) == 0
    task = yaml.safe_load((to / "task.yml").read_text())
    task["training"]["epochs"] = 1
    (to / "task.yml").write_text(yaml.safe_dump(task))
    assert main(["grow", str(to / "s3d.yml"), "--store", str(tmp_path / "store")]) == 0
    assert "step 6: accuracy" in capsys.readouterr().out
    assert main(["compare", str(to / "tpe.yml"), "--budget", "1G", "--out", str(tmp_path / "out")]) == 0


def test_a_folder_of_images_is_looked_at(tmp_path, capsys):
    image_folder.write(tmp_path / "data")
    assert main(["new", "imagefolder", str(tmp_path / "to"), "--data", str(tmp_path / "data")]) == 0
    task = yaml.safe_load((tmp_path / "to" / "task.yml").read_text())
    assert task["data"]["folder"]["path"] == str(tmp_path / "data")
    assert task["model"]["num_classes"] == len(list((tmp_path / "data" / "train").iterdir()))
    assert main(["check", str(tmp_path / "to" / "s3d.yml")]) == 0


def test_every_kind_is_shipped_and_the_configs_of_the_digits_are_the_same_files():
    assert {folder.name for folder in STARTERS.iterdir() if not folder.name.startswith("_")} == set(KINDS)
    assert (Path(__file__).parents[2] / "configs" / "digits").resolve() == Path(str(STARTERS / "digits")).resolve()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits", "FULL"], "FULL: expected a folder that is empty or not there yet"),
        (["digits", "FULL/file"], "FULL/file: expected a folder that is empty or not there yet"),
        (["digits", "FULL/file/x"], "FULL/file/x: expected a folder to write to, got: Not a directory"),
        (["digits", "new", "--data", "x"], "--data: expected the folder of the images with imagefolder alone, got x"),
        (["imagefolder", "new"], "--data: expected the folder of the images with imagefolder alone, got None"),
        (
            ["imagefolder", "new", "--data", "FULL"],
            "FULL: expected train/CLASS and val/CLASS with images, found 0 classes",
        ),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("FULL").mkdir()
    Path("FULL", "file").write_text("mine")
    assert main(["new", *words]) == 2
    one_line(capsys.readouterr().err, message)
    assert [path.name for path in tmp_path.rglob("*")] == ["FULL", "file"]
