import itertools
import json

import pytest
import torch
import yaml

import nni_s3d as s3d
from nni_s3d.errors import ConfigError, ModelError, StoreError
from nni_s3d.search import trial
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store
from nni_s3d.tasks.task import read_task
from nni_s3d.tasks.training import train
from tests import small_task


def folders(store):
    return sorted(p.parent.name for p in store.glob("*/metrics.json"))


@pytest.fixture(
    scope="module",
    params=[{"method": "split", "phase_budget": "epochs"}, {"method": "new_neurons", "epochs": 4}],
    ids=str,
)
def grown(request, tmp_path_factory):
    """A finished experiment: its file, its store and what it yielded."""
    folder = tmp_path_factory.mktemp("grown")
    path = small_task.write(folder, **request.param)
    return path, folder / "store", list(run(read_experiment(path), Store(str(folder / "store"))))


def epochs(path, steps):
    """Return how long the phases of a lineage last."""
    (lineage,) = read_experiment(path).lineages
    macs = [metrics["macs"] for _, metrics in steps]
    return [2, 2, 2] if lineage.phase_budget == "epochs" else [round(4 * macs[0] / own) for own in macs]


def test_every_step_follows_its_parents_plan(grown):
    _, store, steps = grown
    assert [parameters["step"] for parameters, _ in steps] == [0, 1, 2]
    assert widths_of(steps[0][0]) == dict.fromkeys(small_task.NAMES, 3)
    for (before, _), (parameters, metrics) in itertools.pairwise(steps):
        parent = json.loads((store / outcome_path(before["lineage"], before["step"])).read_text())["key"]
        plan = json.loads((store / parent / "plan.json").read_text())
        assert widths_of(parameters) == plan["widths"]
        assert sum(plan["widths"].values()) > sum(widths_of(before).values())
        assert parameters["params"] == metrics["params"] == plan["params"]
        assert parameters["macs"] == metrics["macs"]


def test_metrics_are_what_is_promised(grown):
    path, _, steps = grown
    task = read_task(path.parent / "task.yml")
    names = ["default", "test_accuracy", "loss", "params", "macs", "flops", "train_macs", "step"]
    for parameters, metrics in steps:
        assert list(metrics) == names
        model = task.build_model(widths_of(parameters), 0)
        cost = s3d.count(s3d.trace(model, torch.zeros(1, 1, 8, 8)))
        assert (metrics["params"], metrics["macs"], metrics["flops"]) == (cost.params, cost.macs, cost.flops)
    first, *_, last = (metrics for _, metrics in steps)
    *_, before, _ = (metrics for _, metrics in steps)
    samples = len(task.curvature_loader(task.load_data(), 0).images)
    measured = (before["macs"] + last["macs"]) * samples  # the loss before and after the split
    assert last["train_macs"] == measured + 3 * last["macs"] * 150 * epochs(path, steps)[-1]
    assert first["train_macs"] >= 3 * first["macs"] * 150 * epochs(path, steps)[0]


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


def test_higher_caps_let_a_finished_run_grow_further(tmp_path):
    path, store = small_task.write(tmp_path, steps=1, method="new_neurons"), Store(str(tmp_path / "store"))
    for cap in (4, 8):
        space = {name: {"_type": "quniform", "_value": [3, cap, 1]} for name in small_task.NAMES}
        (tmp_path / "space.json").write_text(json.dumps(space))
        *_, (last, _) = run(read_experiment(path), store)
        assert 4 <= max(widths_of(last).values()) <= cap
    assert max(widths_of(last).values()) > 4


def test_a_finished_run_is_not_run_again(grown, monkeypatch):
    path, store, steps = grown
    monkeypatch.setattr(trial, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert list(run(read_experiment(path), Store(str(store)))) == steps


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_result(grown, tmp_path, monkeypatch, epoch):
    path, _, steps = grown
    saved = []

    def dies(model, loader, recipe, seed, hooks, title):
        def save(state):
            hooks.save(state)
            saved.append(state["epoch"])
            if len(saved) == epoch:
                raise KilledError

        return train(model, loader, recipe, seed, type(hooks)(hooks.load, save, hooks.progress), title)

    monkeypatch.setattr(trial, "train", dies)
    with pytest.raises(KilledError):
        list(run(read_experiment(path), Store(str(tmp_path))))
    assert list(run(read_experiment(path), Store(str(tmp_path)))) == steps
    assert len(saved) == sum(epochs(path, steps))  # none was trained twice


def test_a_failing_step_is_tried_again_once_and_goes_on_from_its_checkpoint(grown, tmp_path, monkeypatch):
    path, _, steps = grown
    original, calls = trial.evaluate, []

    def fails_once(model, loader):
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("out of memory")
        return original(model, loader)

    monkeypatch.setattr(trial, "evaluate", fails_once)
    found = list(run(read_experiment(path), Store(str(tmp_path))))
    assert [metrics for _, metrics in found if metrics is not None] == [metrics for _, metrics in steps]
    assert [metrics is None for _, metrics in found].count(True) == 1


def test_a_mistake_of_the_users_is_not_tried_again(tmp_path, monkeypatch):
    calls = []

    def refuses(*args, **kwargs):
        calls.append(1)
        raise ModelError("no")

    monkeypatch.setattr(trial, "decide", refuses)
    with pytest.raises(ModelError, match=r"^no$"):
        list(run(read_experiment(small_task.write(tmp_path)), Store(str(tmp_path / "s"))))
    assert len(calls) == 1


def test_an_unknown_lineage_leaves_no_trace(tmp_path):
    small_task.write(tmp_path)
    parameters = {"step": 0, "lineage": "other", **dict.fromkeys(small_task.NAMES, 3)}
    with pytest.raises(StoreError, match="expected the settings of lineage 'other', got none"):
        trial.run(parameters, read_task(tmp_path / "task.yml"), Store(str(tmp_path / "s")))
    assert not (tmp_path / "s").exists()


def test_a_lineage_that_fails_twice_ends_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    path = small_task.write(tmp_path, steps=1, lineages=[{"c": 1.0}, {"c": 3.0}])
    original = trial.decide

    def fails(model, graph, settings, *others, **named):
        if settings.c == 1.0:
            raise RuntimeError("the spectrum burnt down")
        return original(model, graph, settings, *others, **named)

    monkeypatch.setattr(trial, "decide", fails)
    found = [(p["lineage"], p["step"], m is None) for p, m in run(read_experiment(path), Store(str(tmp_path / "s")))]
    assert sorted(found) == [
        ("c1-m2-s0", 0, True),
        ("c1-m2-s0", 0, True),
        ("c3-m2-s0", 0, False),
        ("c3-m2-s0", 1, False),
    ]
    assert "lineage c1-m2-s0 ends: step 0 failed 2 times: RuntimeError: the spectrum burnt down" in caplog.text


def test_limits_end_a_lineage_with_a_reason(tmp_path, caplog):
    path = small_task.write(tmp_path, max_params=320)
    caplog.set_level("INFO")
    found = list(run(read_experiment(path), Store(str(tmp_path / "s"))))
    assert len(found) == 1
    assert "above max_params = 320" in caplog.text


def test_no_width_exceeds_its_cap(tmp_path):
    path = small_task.write(tmp_path, steps=3, policy={"name": "top_fraction", "fraction": 1.0})
    (tmp_path / "space.json").write_text(
        json.dumps({name: {"_type": "quniform", "_value": [3, 4, 1]} for name in small_task.NAMES})
    )
    found = list(run(read_experiment(path), Store(str(tmp_path / "s"))))
    assert max(widths_of(found[-1][0]).values()) == 4


def test_plain_widths_are_trained_by_the_same_trial(tmp_path):
    small_task.write(tmp_path)
    task, store = read_task(tmp_path / "task.yml"), Store(str(tmp_path / "s"))
    seen = []
    metrics = trial.run(dict.fromkeys(small_task.NAMES, 5.0), task, store, seen.append)
    assert metrics["step"] == 0
    assert len(seen) == 2
    assert 0 <= metrics["default"] <= 1


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
    settings = {"method": lineage.method, "phase_budget": lineage.phase_budget, "epochs": lineage.epochs}
    path = small_task.write(tmp_path, max_params=10**6, **settings)
    expected = rf"{lineage.label}\.json: expected the same settings, got other ones for max_params"
    with pytest.raises(StoreError, match=expected):
        list(run(read_experiment(path), Store(str(store))))


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


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"trainig": {}}, "task.yml: unknown key 'trainig'"),
        ({"directory": "x"}, "unknown key 'directory'"),
        ({"training": {"epochs": 1.5}}, "training.epochs: expected a whole number, got 1.5"),
        ({"training": {"lr": -1}}, "training.lr: expected a number > 0"),
        ({"model": {}}, "model: expected factory"),
        ({"data": {"name": "digits", "pad": -1}}, "pad: expected a whole number >= 0, got -1"),
        ({"data": {"name": "mnist"}}, "expected one of digits, fashion_mnist, cifar100, got 'mnist'"),
        ({"curvature": {"samples": 0}}, "samples: expected a whole number >= 1, got 0"),
        ({"device": "tpu9"}, "device: expected auto or one that PyTorch finds here, got 'tpu9'"),
    ],
)
def test_bad_tasks_are_refused_before_anything_starts(tmp_path, task, message):
    path = small_task.write(tmp_path, task=task)
    with pytest.raises(ConfigError, match=message):
        read_experiment(path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"factory": "nni_s3d.models"}, "model.factory: expected package.module:function"),
        ({"factory": "nni_s3d.models:nothing"}, "model.factory: expected package.module:function"),
        ({"factory": "no.such:thing"}, "model.factory: expected package.module:function"),
        ({"factory": "nni_s3d.models:mobilenet_v1_small", "colour": 3}, "model: .*'colour'"),
        ({"factory": "nni_s3d.models:mlp", "activation": "Relu"}, "^model.activation: expected the name of a class"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(tmp_path, model, message):
    path = small_task.write(tmp_path, task={"model": model})
    with pytest.raises(ConfigError, match=message):
        read_experiment(path).task.build_model(dict.fromkeys(small_task.NAMES, 3), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [("def f(:", "SyntaxError: invalid syntax"), ("1 / 0", "ZeroDivisionError: division by zero")],
)
def test_a_module_that_cannot_be_imported_is_refused(tmp_path, monkeypatch, content, message):
    (tmp_path / "broken.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    path = small_task.write(tmp_path, task={"model": {"factory": "broken:f"}})
    with pytest.raises(ConfigError, match=rf"^model\.factory: expected package\.module:function, .*: {message}"):
        read_experiment(path).task.build_model({}, 0)


def test_an_experiment_of_another_tuner_is_refused(tmp_path):
    path = small_task.write(tmp_path)
    path.write_text(path.read_text().replace("nni_s3d.plugin.tuner.S3DTuner", "other.Tuner"))
    with pytest.raises(ConfigError, match="tuner: expected className"):
        read_experiment(path)
    path.write_text("tuner: {name: S3D}\ntrialCommand: python other.py\n")
    with pytest.raises(ConfigError, match=r"trialCommand: expected python -m nni_s3d\.plugin\.trial"):
        read_experiment(path)
