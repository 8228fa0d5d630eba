import datetime
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from nni_s3d.cli import main
from nni_s3d.search import trial
from nni_s3d.search.experiment import TRIAL
from nni_s3d.tasks import training
from tests import small_task
from tests.fresh_process import HEAVY, loaded_by


def test_grow_prints_a_line_per_step(tmp_path, capsys):
    assert main(["grow", str(small_task.write(tmp_path, steps=1)), "--store", str(tmp_path / "s")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["c1.3-m2-s0 step 0", "c1.3-m2-s0 step 1", "artefacts"]
    assert "accuracy 0." in lines[0]


def test_check_prints_what_would_run(tmp_path, capsys):
    path = small_task.write(tmp_path, lineages=[{"c": 1.0}, {"steps": 3}])
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(path)]) == 0
    names = "c1-m2-s0 (up to 2 steps), c1.3-m2-s0 (up to 3 steps)"
    assert capsys.readouterr().out == f"{path}: {names} on digits, from 313 params, 5,502 MACs\n"
    assert sorted(tmp_path.rglob("*")) == before


def model(name, **arguments):
    return {"model": {"factory": f"tests.factories:{name}", **arguments}}


def small(**arguments):
    return {"model": {**small_task.TASK["model"], **arguments}}


def knapsack(**settings):
    return {"policy": {"name": "knapsack", **settings}}


INF, NAN = float("inf"), float("nan")
NAME = "classArgs.name: expected 1 to 64 of the characters A-Z"
TRAINS = "model: expected a network that trains on inputs (50, 1, 8, 8) of 10 classes, got "
CLASS_ARGS = [
    *[
        ({"name": name}, NAME)
        for name in ("../../evil", "a/0", "a/state", "\0", "x" * 300, " ", "a\nb", ".a", "a.json")
    ],
    ({"copies": 5}, "classArgs.copies: expected 2, 3 or 4"),
    ({"copies": [2, 2.5]}, "classArgs.copies[1]: expected a whole number, got 2.5"),
    ({"solver": "x"}, "classArgs.solver: expected one of auto, exact, lanczos, rayleigh, got 'x'"),
    ({"smoothing": INF}, "classArgs.smoothing: expected a finite number, got inf"),
    ({"smoothing": 1e300}, "classArgs.smoothing: expected a number > 0 and <= 1e+06, got 1e+300"),
    ({"epsilon": 1e300}, "classArgs.epsilon: expected a number >= 0 and <= 1e+06, got 1e+300"),
    ({"epsilon": 10**400}, "classArgs.epsilon: expected a finite number, got 1000"),
    ({"c": 1e308}, "classArgs.c: expected a number >= 1 (1 is S2D) and <= 1e+06, got 1e+308"),
    ({"c": 10**400}, "classArgs.c: expected a finite number, got 1000"),
    ({"seed": 2**80}, "classArgs.seed: expected a whole number >= 0 and < 2**63, got 1208925819614629174706176"),
    ({"policy": {"name": "top_k", "k": 1, "eta": INF}}, "classArgs.policy.eta: expected a finite number, got inf"),
    ({"policy": {"name": "top_k", "k": 0}}, "classArgs.policy.k: expected a whole number >= 1, got 0"),
    ({"policy": {"name": ["top_k"]}}, "classArgs.policy.name: expected one of top_k, top_fraction, knapsack, got ["),
    (knapsack(budget=10.0), "lineage c1.3-m2-s0: budget: expected at least 5,502 macs, what the network costs"),
    (knapsack(budget=INF), "classArgs.policy.budget: expected a finite number, got inf"),
    (knapsack(growth=NAN), "classArgs.policy.growth: expected a finite number, got nan"),
    (knapsack(), "classArgs.policy.budget: expected either budget or growth, got"),
    ({"max_params": 1}, "lineage c1.3-m2-s0: max_params: expected at least 313, what the network has, got 1"),
    ({"max_macs": 1}, "lineage c1.3-m2-s0: max_macs: expected at least 5,502, what the network has, got 1"),
    ({"lineages": [{"c": 3.0}, {"seed": -1}]}, "classArgs.lineages[1].seed: expected a whole number >= 0"),
]
TASKS = [
    ({"data": {"name": "fashion_mnist"}}, "FashionMNIST/raw: expected the four idx files"),
    ({"data": {"name": "digits", "samples": 5000}}, "data.samples: expected between 2 and 1438 for digits, got 5000"),
    ({"data": {"name": "digits", "samples": 200, "validation": 0.9999}}, "data.validation: expected a fraction that"),
    (
        {"data": {"name": "digits", "pad": 10**9}},
        "data.pad: expected at most 8, the size of the images, got 1000000000",
    ),
    ({"search_space": "none.json"}, "none.json: expected a file, got: No such file"),
    ({"search_space": "no\0ne.json"}, "ne.json': expected a text file, got: embedded null byte"),
    ({"seed": 2**80}, "task.yml: seed: expected a whole number >= 0 and < 2**63, got 1208925819614629174706176"),
    ({"device": "meta"}, "task.yml: device: expected auto or one that PyTorch finds here, got 'meta'"),
    (
        {"device": "privateuseone"},
        "task.yml: device: expected auto or one that PyTorch finds here, got 'privateuseone'",
    ),
    ({"device": "mps"}, "task.yml: device: expected auto or one that PyTorch finds here, got 'mps'"),
    (
        {"directory": "."},
        "task.yml: unknown key 'directory'; expected data, model, search_space, training, curvature, se",
    ),
    ({"curvature": {"memory": -1}}, "task.yml: curvature.memory: expected a number >= 0 (GiB), got -1.0"),
    ({"training": {"lr": -1}}, "task.yml: training.lr: expected a number > 0, got -1.0"),
    ({"training": {"lr": INF}}, "task.yml: training.lr: expected a finite number, got inf"),
    ({"training": {"weight_decay": INF}}, "task.yml: training.weight_decay: expected a finite number, got inf"),
    ({"training": {"milestones": [NAN]}}, "task.yml: training.milestones[0]: expected a finite number, got nan"),
    ({"training": {"nesterov": True, "momentum": 0}}, "task.yml: training.nesterov: expected a momentum > 0 beside it"),
    (
        small(since=datetime.date(2020, 1, 1)),
        "task.yml: model: expected arguments that JSON can say, got Object of type",
    ),
    (small(num_classes=3), TRAINS + "an output of shape (50, 3)"),
    (small(num_classes=-1), "model: expected arguments that nni_s3d.models:mobilenet_v1_small takes, got RuntimeError"),
    (small(colour=3), "model: expected arguments that nni_s3d.models:mobilenet_v1_small takes, got TypeError"),
    ({"model": {"factory": "a:b"}}, "model.factory: expected package.module:function, got 'a:b': ModuleNotFoundError"),
    ({"model": {"factory": ".x:f"}}, "model.factory: expected package.module:function, got '.x:f': TypeError"),
    ({"model": {"factory": "tests.not_python:f"}}, "model.factory: expected package.module:function, got 'tests.not_p"),
    (model("nothing"), "model: expected tests.factories:nothing to return an nn.Module, got NoneType"),
    (model("text"), "model: expected tests.factories:text to return an nn.Module, got str"),
    (
        model("raises_value_error"),
        "model: expected arguments that tests.factories:raises_value_error takes, got ValueE",
    ),
    (model("raises_key_error"), "model: expected arguments that tests.factories:raises_key_error takes, got KeyError"),
    (model("huge"), "model: expected arguments that tests.factories:huge takes, got RuntimeError"),
    (model("tuple_of_scores"), TRAINS + "AttributeError: 'tuple' object has no attribute"),
    (model("one_number"), TRAINS + "an output of shape (50,)"),
    (model("frozen"), TRAINS + "RuntimeError: element 0 of tensors does not require grad"),
    (model("four_for_three"), "model: expected layers of the widths {'conv0': 3, 'pw1': 3, 'pw2': 3, "),
    (model("under_other_names"), "expected conv0, of the search space, among its layers, which it does not have"),
    (model("one_layer"), "model: expected a layer that can be split, got none"),
]
COMMAND = "trialCommand: expected python -m nni_s3d.plugin.trial task.yml, got "
EXPERIMENTS = [
    ({"tuner": 5}, "s3d.yml: tuner: expected a mapping, got 5"),
    ({"tuner": "S3D"}, "s3d.yml: tuner: expected a mapping, got 'S3D'"),
    ({"tuner": ["a"]}, "s3d.yml: tuner: expected a mapping, got ['a']"),
    ({"tuner": {"name": "TPE"}}, "s3d.yml: tuner: expected className: nni_s3d.plugin.tuner.S3DTuner or name: S3D, got"),
    *[
        ({"tuner": {"name": "S3D", "classArgs": wrong}}, "s3d.yml: tuner.classArgs: expected a mapping or nothing, got")
        for wrong in ([1], [], "x", 5, 0)
    ],
    *[({"trialCodeDirectory": w}, "s3d.yml: trialCodeDirectory: expected a text, got") for w in (5, None, [])],
    *[({"searchSpaceFile": w}, "s3d.yml: searchSpaceFile: expected a text or nothing, got") for w in (5, [])],
    ({"searchSpaceFile": None}, "s3d.yml: expected searchSpaceFile or searchSpace, got neither"),
    (
        {"searchSpace": small_task.SPACE, "searchSpaceFile": None, "trialCommand": None},
        "trialCommand: expected a text, got",
    ),
    *[
        ({"trialCommand": f"python -m {TRIAL}{rest}"}, COMMAND)
        for rest in ("", " -h", " 'task.yml", " task.yml other.yml")
    ],
    (
        {"searchSpace": {**small_task.SPACE, "pw5": {"_type": "quniform", "_value": [2, 9, 1]}}},
        "searchSpaceFile: expected the search space of the task, space.json, got another",
    ),
]


@pytest.mark.parametrize("command", ["check", "grow"])
@pytest.mark.parametrize(
    ("class_args", "task", "experiment", "message"),
    [
        *[(changes, {}, {}, message) for changes, message in CLASS_ARGS],
        *[({}, changes, {}, message) for changes, message in TASKS],
        *[({}, {}, changes, message) for changes, message in EXPERIMENTS],
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path, capsys, monkeypatch, command, class_args, task, experiment, message
):
    monkeypatch.setenv("NNI_S3D_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr(trial, "train", lambda *args, **kwargs: pytest.fail("trained"))
    path = small_task.write(tmp_path, task=task, **class_args)
    if experiment:
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **experiment}))
    before = sorted(tmp_path.rglob("*"))
    store = ["--store", str(tmp_path / "s")] if command == "grow" else []
    assert main([command, str(path), *store]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    one_line(capsys.readouterr().err, message)


def one_line(error, message):
    assert error.startswith("nni-s3d: error: ")
    assert error.count("\n") == 1
    assert message in error


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


def test_a_missing_file_is_named(capsys):
    assert main(["grow", "nowhere.yml"]) == 2
    one_line(capsys.readouterr().err, "nowhere.yml: expected a file, got: No such file")


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


RESIDUAL = small_task.RESIDUAL["factory"]


def test_inspect_makes_a_search_space(tmp_path, capsys):
    out = tmp_path / "made.json"
    assert main(["inspect", RESIDUAL, "--input", "1,1,8,8", "--set", "classes=10", "--search-space", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "stem and 1 more" in printed
    assert printed.endswith(f"{out}\n")
    assert json.loads(out.read_text()) == small_task.RESIDUAL_SPACE


@pytest.mark.parametrize(
    "settings",
    [
        ["--set", "width=7", "classes=3"],
        ["--set", "width=7", "--set", "classes=3"],
        ["--set", "width=5", "classes=3", "--set", "width=7"],
    ],
    ids=["together", "one by one", "the last one of a name"],
)
def test_inspect_takes_all_settings(settings, capsys):
    assert main(["inspect", "tests.factories:two_layers", "--input", "1,4", *settings]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0]: row[1] for row in rows if row[0] in ("0", "2")} == {"0": "7", "2": "3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.such:thing", "--input", "1,1"], "model.factory: expected package.module:function, got 'no.such:thing'"),
        ([RESIDUAL, "--input", "1,3,8,8"], "stem fails on the example inputs"),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--set", "colour=3"],
            "model: expected arguments that tests.factories:residual",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--set", "classes"],
            "--set: expected KEY=VALUE, got 'classes'",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--set", "classes=[1"],
            "--set: classes: expected a value as in YAML",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--search-space", "{}/s3d.yml"],
            "s3d.yml: expected a file that is not there",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--search-space", "{}/no/where"],
            "no/where: expected a file to write to",
        ),
    ],
)
def test_mistakes_of_inspect_are_one_line_and_exit_code_2(tmp_path, capsys, arguments, message):
    (tmp_path / "s3d.yml").write_text(yaml.safe_dump({}))
    assert main(["inspect", *(word.replace("{}", str(tmp_path)) for word in arguments)]) == 2
    one_line(capsys.readouterr().err, message)
    assert (tmp_path / "s3d.yml").read_text() == "{}\n"


def test_help_loads_nothing_heavy():
    modules = loaded_by("""
from nni_s3d.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
""")
    assert not (HEAVY | {"nni", "numpy", "yaml", "fsspec"}) & modules
