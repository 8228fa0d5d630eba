"""An unmodified model of the user's own, which knows nothing of widths, through the whole way of a trial."""

import json

import pytest
import torch
import yaml

import nni_s3d as s3d
from nni_s3d.cli import main
from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.search import trial
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_tensors
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import read_task
from tests import small_task

FACTORY = "tests.factories:residual"


def write(folder, space, **class_args):
    path = small_task.write(folder, {"model": {"factory": FACTORY, "classes": 10}}, **class_args)
    (folder / "space.json").write_text(json.dumps(space))
    return path


@pytest.fixture
def space(tmp_path, capsys):
    """The search space that the command makes."""
    out = tmp_path / "made.json"
    assert main(["inspect", FACTORY, "--input", "1,1,8,8", "--set", "classes=10", "--search-space", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "stem and 1 more" in printed
    assert printed.endswith(f"{out}\n")
    return json.loads(out.read_text())


def test_inspect_makes_a_search_space(space):
    steps = {name: entry["_value"] for name, entry in space.items()}
    assert steps == {"stem": [4, 32, 1], "reduce": [4, 32, 2], "grouped": [4, 32, 2]}


def test_it_grows_in_an_experiment(tmp_path, space):
    steps = list(run(read_experiment(write(tmp_path, space)), Store(str(tmp_path / "s"))))
    assert [parameters["step"] for parameters, _ in steps] == [0, 1, 2]
    widths = [widths_of(parameters) for parameters, _ in steps]
    assert widths[0] == {"stem": 4, "reduce": 4, "grouped": 4}
    assert sum(widths[2].values()) > sum(widths[1].values()) > 12
    assert all(w["reduce"] % 2 == w["grouped"] % 2 == 0 for w in widths)
    for parameters, metrics in steps:
        assert parameters["params"] in (None, metrics["params"])


def test_layers_outside_the_search_space_keep_their_widths(tmp_path, space):
    path = write(tmp_path, {"stem": space["stem"]}, policy={"name": "top_fraction", "fraction": 1.0})
    steps = list(run(read_experiment(path), Store(str(tmp_path / "s"))))
    assert [parameters["stem"] for parameters, _ in steps] == [4, 8, 16]
    task = read_task(tmp_path / "task.yml")
    key = Store(str(tmp_path / "s")).read_json(outcome_path(steps[1][0]["lineage"], 1))["key"]
    weights = read_tensors(Store(str(tmp_path / "s")), f"{key}/weights.safetensors")
    assert weights["grouped.weight"].shape[0] == 4
    assert task.build_model({"stem": 16}, 0).stem.out_channels == 16


def test_widths_of_other_strategies_are_trained_from_scratch(tmp_path, space):
    write(tmp_path, space)
    task = read_task(tmp_path / "task.yml")
    metrics = trial.run({"stem": 9.0, "reduce": 6.0, "grouped": 8.0}, task, Store(str(tmp_path / "s")))
    model = task.build_model({"stem": 9, "reduce": 6, "grouped": 8}, 0)
    assert metrics["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert s3d.trace(model, torch.randn(1, 1, 8, 8)).widths == {"stem": 9, "reduce": 6, "grouped": 8}


def test_the_same_seed_makes_the_same_weights(tmp_path, space):
    write(tmp_path, space)
    task = read_task(tmp_path / "task.yml")
    one, same, other = (task.build_model({"stem": 9, "reduce": 4, "grouped": 4}, seed) for seed in (1, 1, 2))
    assert torch.equal(one.stem.weight, same.stem.weight)
    assert not torch.equal(one.stem.weight, other.stem.weight)


@pytest.mark.parametrize(
    ("widths", "error", "message"),
    [
        ({"stem": 3}, ConfigError, "model: widths: expected at least 4 for stem, as it is, got 3"),
        (
            {"nothing": 3},
            ConfigError,
            "model: widths: expected splittable groups .stem, reduce, grouped., got 'nothing'",
        ),
        ({"grouped": 7}, ModelError, "model: plan: expected 2 equal parts where grouped.weight cuts its channels"),
    ],
)
def test_widths_that_the_model_cannot_have_are_refused(tmp_path, space, widths, error, message):
    write(tmp_path, space)
    with pytest.raises(error, match=message):
        read_task(tmp_path / "task.yml").build_model(widths, 0)


def test_every_draw_of_nni_can_be_built(tmp_path, space):
    from nni.algorithms.hpo.random_tuner import RandomTuner

    write(tmp_path, space)
    task, parsed = read_task(tmp_path / "task.yml"), Space.parse(space)
    tuner = RandomTuner(seed=0)
    tuner.update_search_space(space)
    for number in range(5):
        widths = parsed.check(tuner.generate_parameters(number))
        assert s3d.trace(task.build_model(widths, 0), torch.randn(1, 1, 8, 8)).widths == widths


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.such:thing", "--input", "1,1"], "model.factory: expected package.module:function, got 'no.such:thing'"),
        ([FACTORY, "--input", "1,3,8,8"], "stem fails on the example inputs"),
        (
            [FACTORY, "--input", "1,1,8,8", "--set", "colour=3"],
            "model: expected arguments that tests.factories:residual",
        ),
        ([FACTORY, "--input", "1,1,8,8", "--set", "classes"], "--set: expected KEY=VALUE, got 'classes'"),
        ([FACTORY, "--input", "1,1,8,8", "--set", "classes=[1"], "--set: classes: expected a value as in YAML"),
        ([FACTORY, "--input", "1,1,8,8", "--search-space", "{}/s3d.yml"], "s3d.yml: expected a file that is not there"),
        ([FACTORY, "--input", "1,1,8,8", "--search-space", "{}/no/where"], "no/where: expected a file to write to"),
    ],
)
def test_mistakes_of_inspect_are_one_line_and_exit_code_2(tmp_path, capsys, arguments, message):
    (tmp_path / "s3d.yml").write_text(yaml.safe_dump({}))
    assert main(["inspect", *(word.replace("{}", str(tmp_path)) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (tmp_path / "s3d.yml").read_text() == "{}\n"
