import shutil

import pytest

from nni_s3d.errors import DamageError
from nni_s3d.search.artefacts import PRUNED, check_whole, remove_leftovers
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import parse_spec
from nni_s3d.search.store import Store
from nni_s3d.search.trial_context import TrialContext
from tests import small_task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment of one growth step: its file, its store and what it yielded."""
    folder = tmp_path_factory.mktemp("finished")
    path = small_task.write(folder, steps=1)
    return path, folder / "store", list(run(read_experiment(path), Store(str(folder / "store"))))


def trial_of(finished, folder, step, steps=1):
    """Return a trial of the experiment in a copy of its store."""
    _, original, trials = finished
    shutil.copytree(original, folder / "store")
    experiment = read_experiment(small_task.write(folder, steps=steps))
    (lineage,), store = experiment.lineages, Store(str(folder / "store"))
    parent = store.read_json(outcome_path(lineage.label, 0))["key"] if step else None
    spec = parse_spec(trials[step][0], experiment.space)
    return TrialContext(experiment.task, experiment.space, store, spec, lineage=lineage, parent=parent)


@pytest.mark.parametrize("step", [0, 1])
def test_what_a_trial_has_left_is_whole(finished, tmp_path, step):
    assert check_whole(trial_of(finished, tmp_path, step), needed=True) is False


@pytest.mark.parametrize("name", ["spec.json", "weights.safetensors", "plan.json", "plan.safetensors"])
def test_what_is_missing_is_named(finished, tmp_path, name):
    trial = trial_of(finished, tmp_path, 0)
    trial.store.remove(trial.path(name))
    with pytest.raises(DamageError, match=f"{trial.key}/{name}: expected (what a finished trial leaves|the plan)"):
        check_whole(trial, needed=False)


def test_the_last_network_lacks_a_plan_when_there_are_more_steps(finished, tmp_path):
    assert check_whole(trial_of(finished, tmp_path, 1, steps=2), needed=False) is True


def test_a_pruned_network_is_whole_unless_it_is_needed(finished, tmp_path):
    trial = trial_of(finished, tmp_path, 0)
    for name in ("weights.safetensors", "plan.safetensors"):
        trial.store.remove(trial.path(name))
    trial.store.write_json(trial.path(PRUNED), {})
    assert check_whole(trial, needed=False) is False
    with pytest.raises(DamageError, match="weights"):
        check_whole(trial, needed=True)


def test_leftovers_are_removed(finished, tmp_path):
    trial = trial_of(finished, tmp_path, 0)
    before = trial.store.files(trial.key)
    for name in ("checkpoint.pt", "weights.safetensors.0.tmp"):
        (tmp_path / "store" / trial.key / name).write_bytes(b"")
    remove_leftovers(trial)
    assert trial.store.files(trial.key) == before
