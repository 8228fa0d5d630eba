import pytest

from nni_s3d.cli import main, store
from nni_s3d.search import lineage
from tests import small_task
from tests.cli.one_line import one_line


def test_a_store_is_verified_mended_and_pruned(tmp_path, capsys):
    path, place = small_task.write(tmp_path, steps=1), tmp_path / "s"
    grow = ["grow", str(path), "--store", str(place)]
    assert main(grow) == 0
    capsys.readouterr()
    files = sum(file.is_file() for file in place.rglob("*"))
    assert main(["store", "verify", str(place)]) == 0
    assert capsys.readouterr().out == f"{place}: {files} files, 0 of them damaged\n"
    weights = next(place.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["store", "verify", str(place)]) == 1
    named, summary = capsys.readouterr().out.splitlines()
    assert named.startswith(f"{weights}: expected a file as this package wrote it")
    assert summary.endswith(
        "files, 1 of them damaged; steps that need them, and the same nni-s3d grow, make them again"
    )
    assert main(grow) == 0
    assert main(["store", "verify", str(place)]) == 0
    capsys.readouterr()
    assert main(["store", "prune", str(place), "--keep", "newest"]) == 0
    assert capsys.readouterr().out == f"{place}: removed 3 files\n"
    assert len(list(place.rglob("weights.safetensors"))) == 1
    assert main(["store", "verify", str(place)]) == 0


def test_the_choices_are_those_of_the_settings():
    assert (store.KEEP, store.FRONTS) == (lineage.KEEP, lineage.FRONTS)


@pytest.mark.parametrize("action", ["verify", "prune"])
def test_a_store_that_is_not_there_is_one_line_and_exit_code_2(tmp_path, capsys, action):
    assert main(["store", action, str(tmp_path / "none")]) == 2
    one_line(capsys.readouterr().err, "none: expected a place to read and write, got FileNotFoundError")
