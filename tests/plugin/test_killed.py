"""Whatever is killed under NNI, the experiment goes on and ends as one that was never disturbed.

Run with `pytest -m slow tests/plugin/test_killed.py`.
"""

import random
from pathlib import Path

import pytest
import yaml

from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from tests.browser import until
from tests.killed import content
from tests.nni_experiment import Experiment, kill

ROOT = Path(__file__).parents[2]
STEPS = 3


@pytest.fixture(scope="module")
def config():
    """The digits, with short steps and two lineages side by side."""
    made = yaml.safe_load((ROOT / "configs/digits/s3d.yml").read_text())
    made["tuner"]["classArgs"] |= {"steps": STEPS, "epochs": 12, "lineages": [{"c": 1.3}, {"c": 1}]}
    made["trialConcurrency"] = 2
    for key in ("searchSpaceFile", "trialCodeDirectory"):
        made[key] = str((ROOT / "configs/digits" / made[key]).resolve())
    return made


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """What the store of an undisturbed experiment holds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "s3d.yml").write_text(yaml.safe_dump(config))
    list(run(read_experiment(folder / "s3d.yml"), Store(str(folder / "s"))))
    return content(folder / "s")


def files(experiment):
    return sum(path.is_file() for path in experiment.store.rglob("*")) if experiment.store.exists() else 0


def kill_trial(experiment):
    trials = until(lambda: experiment.trials() or experiment.status == "DONE", 120)
    if trials is not True:
        kill(trials[0])


def kill_tuner(experiment):
    kill(experiment.tuners()[0])
    until(lambda: experiment.status in ("ERROR", "STOPPED", "DONE"), 120)
    experiment.nnictl("stop", experiment.id)
    experiment.resume()


def kill_manager(experiment):
    kill(experiment.managers()[0])
    experiment.resume()


def stop(experiment):
    experiment.nnictl("stop", experiment.id)
    experiment.resume()


def stop_twice(experiment):
    """Cut off the resume, too, before a trial has started."""
    experiment.nnictl("stop", experiment.id)
    experiment.resume()
    stop(experiment)


KINDS = {"trial": kill_trial, "tuner": kill_tuner, "manager": kill_manager, "stop": stop, "stop twice": stop_twice}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_experiment_that_is_disturbed_twice_ends_with_the_same_networks(config, undisturbed, tmp_path, kind):
    draw = random.Random(kind)
    with Experiment(tmp_path, config) as experiment:
        for share in (draw.uniform(0.05, 0.4), draw.uniform(0.45, 0.8)):
            until(lambda share=share: files(experiment) >= share * len(undisturbed), 240)
            KINDS[kind](experiment)
        until(lambda: experiment.status == "DONE", 300)
        found = content(experiment.store)
    assert {name: found[name] for name in found if not name.endswith(".tmp")} == undisturbed
