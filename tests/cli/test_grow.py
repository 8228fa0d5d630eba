import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nni_s3d.cli import main
from nni_s3d.tasks import training
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of an experiment of one growth step, and the keys of the seed and of that step."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(["grow", str(small_task.write(folder, steps=1)), "--store", str(folder / "s")]) == 0
    outcomes = [json.loads((folder / f"s/lineages/c1.3-m2-s0/{step}.json").read_text()) for step in (0, 1)]
    return folder, *(outcome["key"] for outcome in outcomes)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def edit(**changes):
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop(path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in content.items() if name != "conv0"}))


def write(content):
    return lambda path: path.write_text(content)


def tensors(change):
    return lambda path: save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path)


def checkpoint(state):
    return lambda path: torch.save(state, path)


def directory(path):
    path.unlink()
    path.mkdir()


UNREADABLE = "expected a file that this package wrote, got one that cannot be read ("
LINEAGE = "lineages/c1.3-m2-s0"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("task.json", write("null"), "task.json: expected a mapping, got None"),
        ("task.json", write("[1]"), "task.json: expected a mapping, got [1]"),
        ("task.json", edit(seed=7), "task.json: expected the same settings, got other ones for seed"),
        ("task.json", directory, "task.json: expected a place to read and write, got IsADirectoryError"),
        (f"{LINEAGE}.json", write("3"), "c1.3-m2-s0.json: expected a mapping, got 3"),
        (f"{LINEAGE}/0.json", directory, "0.json: expected a place to read and write, got IsADirectoryError"),
        (
            "SEED/metrics.json",
            write("{}"),
            "metrics.json: expected a mapping with default, test_accuracy, params",
        ),
        (
            "SEED/metrics.json",
            write("[]"),
            "metrics.json: expected a mapping with default, test_accuracy, params",
        ),
        ("SEED/plan.json", write("null"), "plan.json: expected a mapping with widths, params, macs, got None"),
        ("SEED/plan.json", write("{"), "plan.json: " + UNREADABLE),
        ("SEED/plan.json", edit(copies=3), "of a network with widths {'conv0': 3, "),
        ("SEED/plan.json", edit(widths=3), "plan.json: widths: expected a mapping, got 3"),
        ("SEED/plan.safetensors", cut, "plan.safetensors: " + UNREADABLE),
        (
            "SEED/plan.safetensors",
            tensors(lambda x: x * math.nan),
            "plan.safetensors: expected finite numbers",
        ),
        ("SEED/spec.json", drop, "spec.json: 'conv0' is missing"),
        ("SEED/spec.json", edit(conv0="x"), "spec.json: conv0: expected a whole number from 3 to 12, got 'x'"),
        ("SEED/weights.safetensors", cut, "weights.safetensors: " + UNREADABLE),
        ("SEED/weights.safetensors", Path.unlink, "expected the weights and the plan of the parent"),
        (
            "SEED/weights.safetensors",
            tensors(lambda x: x * math.nan),
            "weights.safetensors: expected finite numbers",
        ),
        ("SEED/weights.safetensors", tensors(lambda x: x[..., None]), "got: Error(s) in loading state_dict for"),
        ("STEP/checkpoint.pt", write("junk"), "checkpoint.pt: " + UNREADABLE),
        (
            "STEP/checkpoint.pt",
            checkpoint({}),
            "checkpoint.pt: expected a checkpoint of this network and recipe, got",
        ),
    ],
)
def test_a_damaged_store_is_one_line_and_exit_code_2(finished, tmp_path, capsys, monkeypatch, name, damage, message):
    """The last step is to be trained once more, from what is damaged."""
    folder, seed, step = finished
    monkeypatch.setattr(training, "_epoch", lambda *args: pytest.fail("trained"))
    shutil.copytree(folder, tmp_path / "copy")
    store = tmp_path / "copy" / "s"
    (store / step / "metrics.json").unlink()
    damage(store / name.replace("SEED", seed).replace("STEP", step))
    assert main(["grow", str(tmp_path / "copy" / "s3d.yml"), "--store", str(store)]) == 2
    one_line(capsys.readouterr().err, message)
    assert not list(store.rglob("*.tmp"))
