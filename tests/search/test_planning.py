import pytest
import torch
from safetensors.torch import load_file

from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store
from tests import small_task

WIDE = {"policy": {"name": "top_fraction", "fraction": 0.6}}
NEW = {"method": "new_neurons"}
BRANCHES = {"new": NEW, "s2d": {"c": 1.0}, "wide": WIDE}
OWN = "c1.3-m2-s0"


@pytest.fixture(scope="module")
def branched(tmp_path_factory):
    """An experiment of one growth step in four ways: its store, and what it yielded by lineage and step."""
    folder = tmp_path_factory.mktemp("branched")
    store = Store(str(folder / "store"))
    steps = run(read_experiment(small_task.write(folder, steps=1, branches=BRANCHES)), store)
    return store, {(parameters["lineage"], parameters["step"]): (parameters, metrics) for parameters, metrics in steps}


def weights(store, label, step):
    return load_file(f"{store.url}/{store.read_json(outcome_path(label, step))['key']}/weights.safetensors")


def test_one_network_grows_in_all_ways(branched):
    _, steps = branched
    labels = [OWN, *(f"{OWN}.1-{way}" for way in BRANCHES)]
    assert list(steps) == [(OWN, 0), *((label, 1) for label in labels)]
    neurons = {label: sum(widths_of(steps[label, 1][0]).values()) for label in labels}
    assert neurons[f"{OWN}.1-wide"] > neurons[OWN] > sum(widths_of(steps[OWN, 0][0]).values())


@pytest.mark.parametrize(("label", "settings"), [(OWN, {}), (f"{OWN}.1-wide", WIDE), (f"{OWN}.1-new", NEW)])
def test_a_branch_grows_as_a_lineage_of_its_settings_would(branched, tmp_path, label, settings):
    store, steps = branched
    alone = Store(str(tmp_path / "store"))
    _, (parameters, metrics) = run(read_experiment(small_task.write(tmp_path, steps=1, **settings)), alone)
    assert widths_of(parameters) == widths_of(steps[label, 1][0])
    assert metrics == steps[label, 1][1]
    torch.testing.assert_close(weights(store, label, 1), weights(alone, parameters["lineage"], 1), rtol=0, atol=0)


def test_the_spectrum_is_paid_once(branched, tmp_path):
    _, steps = branched
    alone = run(read_experiment(small_task.write(tmp_path, steps=1)), Store(str(tmp_path / "store")))
    assert steps[OWN, 0][1]["train_macs"] == next(alone)[1]["train_macs"]


def test_the_outcome_tells_what_the_controller_needs(branched):
    store, steps = branched
    outcome, metrics = store.read_json(outcome_path(OWN, 0)), steps[OWN, 0][1]
    for name in ("default", "params", "macs"):
        assert outcome[name] == metrics[name]
    assert list(outcome["branches"]) == list(BRANCHES)
    assert outcome["branches"]["s2d"] == steps[f"{OWN}.1-s2d", 1][0]
    assert store.read_json(outcome_path(OWN, 1))["branches"] == {}


@pytest.mark.parametrize("budget_is_own", [True, False])
def test_a_way_ends_where_a_network_costs_more_than_its_budget(tmp_path, caplog, budget_is_own):
    caplog.set_level("INFO", "nni_s3d")
    small, large = (
        {"name": "knapsack", "cost": "macs", **part} for part in ({"budget": [6000, 7000]}, {"growth": 1.0})
    )
    own, other = (small, large) if budget_is_own else (large, small)
    path = small_task.write(tmp_path, steps=2, policy=own, branches={"x": {"policy": other}})
    metrics = [metrics for _, metrics in run(read_experiment(path), Store(str(tmp_path / "store")))]
    assert [one["step"] for one in metrics[:3]] == [0, 1, 1]
    assert (metrics[1]["macs"] <= 6000) == budget_is_own
    assert "no plan: budget: expected at least" in caplog.text
