import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import nni_s3d as s3d
from nni_s3d.errors import StoreError
from nni_s3d.search.experiment import read_experiment
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import parse_spec
from nni_s3d.search.start import first_weights
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_tensors, write_checkpoint
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.tasks.optimizers import make_optimizer
from nni_s3d.tasks.training import evaluate
from tests import small_task


def context(path, store, parameters, **changes):
    """Return what the trial of some parameters works with."""
    experiment = read_experiment(path)
    (lineage,) = experiment.lineages
    spec = parse_spec(parameters, experiment.space)
    parent = None
    if spec.step:
        parent = json.loads((store / outcome_path(lineage.label, spec.step - 1)).read_text())["key"]
    settings = {"lineage": lineage, "parent": parent, "report": print} | changes
    return TrialContext(experiment.task, experiment.space, Store(str(store)), spec, **settings)


def saved_plan(folder):
    store, plan = Store(str(folder.parent)), f"{folder.name}/plan"
    return s3d.GrowthPlan.load(store.read_json(f"{plan}.json"), read_tensors(store, f"{plan}.safetensors"))


def test_the_seed_network_is_fresh(grown):
    path, store, steps = grown
    trial = context(path, store, steps[0][0])
    start = first_weights(trial, trial.task.load_data())
    assert (start.graph, start.macs) == (None, 0)
    fresh = trial.task.build_model(trial.space.low, trial.seed)
    torch.testing.assert_close(start.model.state_dict(), fresh.state_dict(), rtol=0, atol=0)


def test_widths_of_another_strategy_are_fresh(grown):
    path, store, _ = grown
    trial = context(path, store, dict.fromkeys(small_task.NAMES, 5), lineage=None)
    start = first_weights(trial, trial.task.load_data())
    assert s3d.trace(start.model, torch.zeros(1, 1, 8, 8)).widths == dict.fromkeys(small_task.NAMES, 5)


def test_a_grown_network_is_split_from_its_parent(grown, caplog):
    caplog.set_level("INFO", "nni_s3d")
    path, store, steps = grown
    before, trial = (context(path, store, parameters) for parameters, _ in steps[:2])
    data = trial.task.load_data()
    start = first_weights(trial, data)
    assert start.graph.widths == trial.spec.widths
    samples = trial.task.curvature_loader(data, trial.seed)
    parent = trial.task.build_model(before.spec.widths, 0)
    parent.load_state_dict(load_file(store / before.path(before.grown_weights)))
    plan = saved_plan(store / trial.parent)
    split = s3d.split(parent, s3d.trace(parent, torch.zeros(1, 1, 8, 8)), plan, trial.lineage.epsilon).model
    losses = evaluate(parent, samples).loss, evaluate(split, samples).loss
    s3d.shrink_and_perturb(split, trial.lineage.shrink, trial.lineage.perturb, trial.seed_of_step)
    torch.testing.assert_close(start.model.state_dict(), split.state_dict(), rtol=0, atol=0)
    assert f"the loss changes by {losses[1] - losses[0]:.3g}, {losses[0]:.4f} -> {losses[1]:.4f}" in caplog.text
    assert start.macs == sum(metrics["macs"] for _, metrics in steps[:2]) * len(samples.images)


def test_before_the_decay_the_optimizer_goes_on_with_its_state(grown):
    path, store, steps = grown
    before, trial = (context(path, store, parameters) for parameters, _ in steps[:2])
    start = first_weights(trial, trial.task.load_data())
    if trial.task.training.schedule != "wsd":
        assert start.optimizer_state is None
        return
    parent = trial.task.build_model(before.spec.widths, 0)
    parent.load_state_dict(load_file(store / before.path("stable.safetensors")))
    cooled = load_file(store / before.path("weights.safetensors"))
    assert not torch.equal(cooled["conv0.weight"], parent.state_dict()["conv0.weight"])
    optimizer = make_optimizer(parent, trial.task.training)
    optimizer.load_state_dict(torch.load(store / before.path("optimizer.pt"), weights_only=True))
    graph = s3d.trace(parent, torch.zeros(1, 1, 8, 8))
    expected = s3d.split(parent, graph, saved_plan(store / trial.parent), trial.lineage.epsilon, optimizer)
    momenta = [state["momentum_buffer"] for state in start.optimizer_state["state"].values()]
    assert any(momentum.any() for momentum in momenta)
    torch.testing.assert_close(start.optimizer_state["state"], expected.optimizer_state["state"], rtol=0, atol=0)


@pytest.mark.parametrize("damage", [{}, {"state": {0: 3}, "param_groups": []}, [1]], ids=str)
def test_the_optimizer_of_another_network_is_refused(grown, tmp_path, damage):
    path, store, steps = grown
    trial = context(path, store, steps[1][0])
    if not trial.grows_before_decay:
        pytest.skip("no optimizer goes on with other schedules")
    shutil.copytree(store / trial.parent, tmp_path / trial.parent)
    write_checkpoint(Store(str(tmp_path)), f"{trial.parent}/optimizer.pt", damage)
    with pytest.raises(StoreError, match=f"{trial.parent}: expected the weights and the plan of a network with widths"):
        first_weights(replace(trial, store=Store(str(tmp_path))), trial.task.load_data())


@pytest.mark.parametrize("name", ["spec.json", "weights", "plan.json", "plan.safetensors", "optimizer.pt"])
def test_a_parent_that_is_not_whole_is_refused(grown, tmp_path, name):
    path, store, steps = grown
    trial = context(path, store, steps[1][0])
    if name == "optimizer.pt" and not trial.grows_before_decay:
        pytest.skip("no optimizer goes on with other schedules")
    name = trial.grown_weights if name == "weights" else name
    shutil.copytree(store / trial.parent, tmp_path / trial.parent, ignore=shutil.ignore_patterns(name))
    partial = replace(trial, store=Store(str(tmp_path)))
    with pytest.raises(
        StoreError, match=f"{trial.parent}: expected the weights and the plan of a network that grows, got none"
    ):
        first_weights(partial, trial.task.load_data())


def test_a_plan_of_other_widths_is_refused(grown):
    path, store, steps = grown
    trial = context(path, store, steps[1][0] | {"conv0": 12})
    with pytest.raises(StoreError, match=rf"expected the plan of {trial.parent} to give widths .*'conv0': 12"):
        first_weights(trial, trial.task.load_data())
