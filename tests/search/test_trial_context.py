from dataclasses import replace

import pytest

from nni_s3d.search.lineage import Lineage
from nni_s3d.search.spec import Spec
from nni_s3d.search.store import Store
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.tasks.task import read_task
from tests import small_task


@pytest.fixture
def trial(tmp_path):
    """The second step of a lineage."""
    small_task.write(tmp_path)
    task, store = read_task(tmp_path / "task.yml"), Store(str(tmp_path / "s"))
    lineage = Lineage(seed=3)
    spec = Spec(dict.fromkeys(small_task.NAMES, 4), 2, lineage.label)
    return TrialContext(task, task.space(), store, spec, lineage=lineage, parent="0123", report=print)


def test_artefacts_lie_in_a_folder_that_is_called_after_all_that_determines_them(trial):
    assert trial.path("metrics.json") == f"{trial.key}/metrics.json"
    space = trial.space
    others = [
        replace(trial, task=replace(trial.task, seed=9)),
        replace(trial, lineage=replace(trial.lineage, c=2.0)),
        replace(trial, spec=replace(trial.spec, widths=dict.fromkeys(small_task.NAMES, 5))),
        replace(trial, spec=replace(trial.spec, step=3)),
        replace(trial, parent="4567"),
        replace(trial, space=replace(space, values={name: range(3, 99) for name in space.values})),
        replace(trial, lineage=None, parent=None),
    ]
    assert len({context.key for context in (trial, *others)}) == 1 + len(others)


def test_the_name_of_a_lineage_and_known_costs_determine_nothing(trial):
    named = replace(trial, lineage=replace(trial.lineage, name="other"), spec=replace(trial.spec, lineage="other"))
    costed = replace(trial, spec=replace(trial.spec, params=1, macs=1))
    assert named.key == costed.key == trial.key


def test_the_seed_is_that_of_the_lineage_and_every_step_has_one(trial):
    assert trial.seed == 3
    first = replace(trial, spec=replace(trial.spec, step=0))
    assert len({trial.seed, trial.seed_of_step, first.seed_of_step}) == 3
    assert replace(trial, lineage=None).seed == trial.task.seed == 0
