import json
import shutil

import pytest
import yaml

from nni_s3d.errors import ConfigError, ModelError, StoreError
from nni_s3d.search import planning, work
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_tensors
from nni_s3d.tasks.task import read_task
from tests import small_task


def folders(store):
    return sorted(p.parent.name for p in store.glob("*/metrics.json"))


def test_the_same_seed_grows_the_same(grown, tmp_path):
    path, store, steps = grown
    again = list(run(read_experiment(path), Store(str(tmp_path / "store"))))
    assert again == steps
    for name in folders(store):
        first, second = ((s / name / "weights.safetensors").read_bytes() for s in (store, tmp_path / "store"))
        assert first == second


def test_another_seed_grows_another_network(grown, tmp_path):
    path, _, steps = grown
    settings = yaml.safe_load(path.read_text())["tuner"]["classArgs"]
    other = list(
        run(read_experiment(small_task.write(tmp_path, **settings | {"seed": 1})), Store(str(tmp_path / "store")))
    )
    assert all(theirs["loss"] != ours["loss"] for (_, theirs), (_, ours) in zip(other, steps, strict=True))


def test_a_failing_step_is_tried_again_once_and_goes_on_from_its_checkpoint(grown, tmp_path, monkeypatch):
    path, _, steps = grown
    original, calls = work.evaluate, []

    def fails_once(model, loader):
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("out of memory")
        return original(model, loader)

    monkeypatch.setattr(work, "evaluate", fails_once)
    trials = list(run(read_experiment(path), Store(str(tmp_path))))
    assert [metrics for _, metrics in trials if metrics is not None] == [metrics for _, metrics in steps]
    assert [metrics is None for _, metrics in trials].count(True) == 1


def test_a_mistake_that_a_second_try_would_repeat_ends_its_lineage_and_no_other(tmp_path, monkeypatch, caplog):
    path = small_task.write(tmp_path, steps=1, lineages=[{"c": 1.0}, {"c": 3.0}])
    original = planning.decide

    def refuses(model, graph, settings, *others, **named):
        if settings.c == 1.0:
            raise ModelError("no")
        return original(model, graph, settings, *others, **named)

    monkeypatch.setattr(planning, "decide", refuses)
    trials = [(p["lineage"], p["step"], m is None) for p, m in run(read_experiment(path), Store(str(tmp_path / "s")))]
    assert sorted(trials) == [("c1-m2-s0", 0, True), ("c3-m2-s0", 0, False), ("c3-m2-s0", 1, False)]
    assert "lineage c1-m2-s0 ends: step 0 failed in a way that it would again: ModelError: no" in caplog.text


def test_a_lineage_that_fails_twice_ends_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    path = small_task.write(tmp_path, steps=1, lineages=[{"c": 1.0}, {"c": 3.0}])
    original = planning.decide

    def fails(model, graph, settings, *others, **named):
        if settings.c == 1.0:
            raise RuntimeError("the spectrum burnt down")
        return original(model, graph, settings, *others, **named)

    monkeypatch.setattr(planning, "decide", fails)
    trials = [(p["lineage"], p["step"], m is None) for p, m in run(read_experiment(path), Store(str(tmp_path / "s")))]
    assert sorted(trials) == [
        ("c1-m2-s0", 0, True),
        ("c1-m2-s0", 0, True),
        ("c3-m2-s0", 0, False),
        ("c3-m2-s0", 1, False),
    ]
    assert "lineage c1-m2-s0 ends: step 0 failed 2 times: RuntimeError: the spectrum burnt down" in caplog.text


def test_a_store_of_another_task_is_refused_and_untouched(grown, tmp_path):
    _, store, _ = grown
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    other = small_task.write(tmp_path, task={"seed": 5})
    with pytest.raises(StoreError, match="got other ones for seed"):
        list(run(read_experiment(other), Store(str(store))))
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_other_settings_under_a_name_that_is_taken_are_refused(grown, tmp_path):
    path, store, _ = grown
    (lineage,) = read_experiment(path).lineages
    for file in ("task.yml", "space.json", "s3d.yml"):
        shutil.copy(path.parent / file, tmp_path)
    other = yaml.safe_load(path.read_text())
    other["tuner"]["classArgs"]["max_params"] = 10**6
    (tmp_path / "s3d.yml").write_text(yaml.safe_dump(other))
    expected = rf"{lineage.label}\.json: expected the same settings, got other ones for max_params"
    with pytest.raises(StoreError, match=expected):
        list(run(read_experiment(tmp_path / "s3d.yml"), Store(str(store))))


@pytest.mark.parametrize(
    ("class_args", "message"),
    [
        ({"copies": 5}, "copies: expected 2, 3 or 4"),
        ({"c": 0.5}, "c: expected a number >= 1"),
        ({"epsilon": -1}, "epsilon: expected a number >= 0"),
        ({"stepz": 1}, "unknown key 'stepz'"),
        ({"steps": "2"}, "steps: expected a whole number, got '2'"),
        ({"steps": -1}, "steps: expected a whole number >= 0, got -1"),
        ({"policy": {"name": "best"}}, "policy.name: expected one of top_k, top_fraction, knapsack, got 'best'"),
        ({"policy": {"name": "top_k"}}, "policy: expected the key 'k'"),
        ({"policy": {"name": "top_fraction", "fraction": 2.0}}, r"fraction: expected a number in \(0, 1\], got 2.0"),
        ({"policy": {"name": "knapsack", "cost": "macs"}}, "either budget or growth"),
        ({"copies": [1, 2, 3]}, "a mixed choice needs a knapsack"),
        ({"lineages": [{}, {}]}, "two are called 'c1.3-m2-s0'"),
        ({"lineages": []}, "lineages: expected a list of settings"),
        ({"lineages": [3]}, r"lineages\[0\]: expected a mapping, got 3"),
    ],
)
def test_bad_growth_settings_are_refused_before_anything_starts(tmp_path, class_args, message):
    path = small_task.write(tmp_path, **class_args)
    with pytest.raises(ConfigError, match=message):
        read_experiment(path)


def test_an_experiment_of_another_tuner_is_refused(tmp_path):
    path = small_task.write(tmp_path)
    path.write_text(path.read_text().replace("nni_s3d.plugin.tuner.S3DTuner", "other.Tuner"))
    with pytest.raises(ConfigError, match="tuner: expected className"):
        read_experiment(path)
    path.write_text("tuner: {name: S3D}\ntrialCommand: python other.py\n")
    with pytest.raises(ConfigError, match=r"trialCommand: expected python -m nni_s3d\.plugin\.trial"):
        read_experiment(path)


def test_a_network_that_knows_nothing_of_widths_grows(tmp_path):
    steps = list(run(read_experiment(small_task.write_residual(tmp_path)), Store(str(tmp_path / "s"))))
    assert [parameters["step"] for parameters, _ in steps] == [0, 1, 2]
    widths = [widths_of(parameters) for parameters, _ in steps]
    assert widths[0] == {"stem": 4, "reduce": 4, "grouped": 4}
    assert sum(widths[2].values()) > sum(widths[1].values()) > 12
    assert all(w["reduce"] % 2 == w["grouped"] % 2 == 0 for w in widths)
    for parameters, metrics in steps:
        assert parameters["params"] in (None, metrics["params"])


def test_a_network_that_keeps_widths_in_attributes_grows(tmp_path):
    path = small_task.write(tmp_path, {"model": {"factory": "tests.factories:cut"}})
    lowest = {"a": 2, "a#2": 4, "b": 1, "b#2": 3}
    space = {name: {"_type": "quniform", "_value": [low, 32, 1]} for name, low in lowest.items()}
    (tmp_path / "space.json").write_text(json.dumps(space))
    steps = list(run(read_experiment(path), Store(str(tmp_path / "s"))))
    widths = [widths_of(parameters) for parameters, _ in steps]
    assert widths[0] == lowest
    assert sum(widths[2].values()) > sum(widths[1].values()) > 10
    model = read_task(tmp_path / "task.yml").build_model(widths[2], 0)
    assert (model.first, model.widths) == (widths[2]["a"], (widths[2]["b"], widths[2]["b#2"]))


def test_layers_outside_the_search_space_keep_their_widths(tmp_path):
    path = small_task.write_residual(
        tmp_path, {"stem": small_task.RESIDUAL_SPACE["stem"]}, policy={"name": "top_fraction", "fraction": 1.0}
    )
    steps = list(run(read_experiment(path), Store(str(tmp_path / "s"))))
    assert [parameters["stem"] for parameters, _ in steps] == [4, 8, 16]
    task = read_task(tmp_path / "task.yml")
    key = Store(str(tmp_path / "s")).read_json(outcome_path(steps[1][0]["lineage"], 1))["key"]
    weights = read_tensors(Store(str(tmp_path / "s")), f"{key}/weights.safetensors")
    assert weights["grouped.weight"].shape[0] == 4
    assert task.build_model({"stem": 16}, 0).stem.out_channels == 16
