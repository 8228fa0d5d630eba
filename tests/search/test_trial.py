import itertools
import json
import shutil
from dataclasses import replace

import pytest
import torch

import nni_s3d as s3d
from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search import trial, work
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store
from nni_s3d.tasks.task import read_task
from nni_s3d.tasks.training import train
from tests import small_task


def epochs(path, steps):
    """Return how long the phases of a lineage last."""
    (lineage,) = read_experiment(path).lineages
    if lineage.phase_budget == "epochs":
        return [2, 2, 2]
    macs = [metrics["macs"] for _, metrics in steps]
    of_seed = lineage.epochs if isinstance(lineage.epochs, list) else [lineage.epochs] * len(macs)
    return [round(e * macs[0] / m) for e, m in zip(of_seed, macs, strict=True)]


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
    monkeypatch.setattr(work, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert list(run(read_experiment(path), Store(str(store)))) == steps


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_result(grown, tmp_path, monkeypatch, epoch):
    path, _, steps = grown
    saved = []

    def dies(model, loader, recipe, seed, hooks, *more):
        def save(state):
            hooks.save(state)
            saved.append(state["epoch"])
            if len(saved) == epoch:
                raise KilledError

        return train(model, loader, recipe, seed, replace(hooks, save=save), *more)

    monkeypatch.setattr(work, "train", dies)
    with pytest.raises(KilledError):
        list(run(read_experiment(path), Store(str(tmp_path))))
    assert list(run(read_experiment(path), Store(str(tmp_path)))) == steps
    assert len(saved) == sum(epochs(path, steps))  # none was trained twice


def test_an_unknown_lineage_leaves_no_trace(tmp_path):
    small_task.write(tmp_path)
    parameters = {"step": 0, "lineage": "other", **dict.fromkeys(small_task.NAMES, 3)}
    with pytest.raises(StoreError, match="expected the settings of lineage 'other', got none"):
        trial.run(parameters, read_task(tmp_path / "task.yml"), Store(str(tmp_path / "s")))
    assert not (tmp_path / "s").exists()


def test_limits_end_a_lineage_with_a_reason(tmp_path, caplog):
    path = small_task.write(tmp_path, max_params=320)
    caplog.set_level("INFO")
    trials = list(run(read_experiment(path), Store(str(tmp_path / "s"))))
    assert len(trials) == 1
    assert "above max_params = 320" in caplog.text


def test_no_width_exceeds_its_cap(tmp_path):
    path = small_task.write(tmp_path, steps=3, policy={"name": "top_fraction", "fraction": 1.0})
    (tmp_path / "space.json").write_text(
        json.dumps({name: {"_type": "quniform", "_value": [3, 4, 1]} for name in small_task.NAMES})
    )
    *_, (last, _) = run(read_experiment(path), Store(str(tmp_path / "s")))
    assert max(widths_of(last).values()) == 4


def test_plain_widths_are_trained_by_the_same_trial(tmp_path):
    small_task.write(tmp_path)
    task, store = read_task(tmp_path / "task.yml"), Store(str(tmp_path / "s"))
    seen = []
    metrics = trial.run(dict.fromkeys(small_task.NAMES, 5.0), task, store, seen.append)
    assert metrics["step"] == 0
    assert len(seen) == 2
    assert 0 <= metrics["default"] <= 1


def test_widths_of_other_strategies_are_trained_from_scratch(tmp_path):
    small_task.write_residual(tmp_path)
    task = read_task(tmp_path / "task.yml")
    metrics = trial.run({"stem": 9.0, "reduce": 6.0, "grouped": 8.0}, task, Store(str(tmp_path / "s")))
    model = task.build_model({"stem": 9, "reduce": 6, "grouped": 8}, 0)
    assert metrics["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert s3d.trace(model, torch.randn(1, 1, 8, 8)).widths == {"stem": 9, "reduce": 6, "grouped": 8}


@pytest.mark.parametrize("step", [0, 1])
def test_a_copy_of_a_step_with_other_widths_is_refused_and_changes_nothing(grown, tmp_path, step):
    """As somebody may submit from NNI's web UI."""
    path, store, steps = grown
    shutil.copytree(store, tmp_path / "s")
    before = {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}
    parameters = steps[step][0] | {"conv0": 11}
    with pytest.raises(ConfigError, match=rf"parameters: expected the widths .* of step {step}, got .*'conv0': 11"):
        trial.run(parameters, read_task(path.parent / "task.yml"), Store(str(tmp_path / "s")))
    assert {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()} == before
