"""Two hundred trials in one experiment under NNI: what the tuner takes does not grow with them.

Run with `pytest -m slow tests/plugin/test_long_run.py`; half an hour.
"""

import pytest
import yaml

from tests import small_task
from tests.browser import until
from tests.nni_experiment import Experiment
from tests.usage import handles, resident, tensors

STEPS = 100  # and a network to begin with, of each of two lineages


@pytest.mark.slow
def test_the_tuner_of_two_hundred_trials_is_bounded(tmp_path, capsys):
    path = small_task.write_long(tmp_path, steps=STEPS, lineages=[{"c": 3.0}, {"c": 2.9}])
    config = yaml.safe_load(path.read_text()) | {"trialConcurrency": 2, "maxTrialNumber": 300}
    seen = []
    with Experiment(tmp_path, config) as experiment:

        def trials():
            return len(list(experiment.store.rglob("metrics.json"))) if experiment.store.exists() else 0

        for wanted in range(20, 2 * STEPS + 1, 20):
            until(lambda wanted=wanted: trials() >= wanted, 3600)
            (tuner,) = experiment.tuners()
            seen.append((wanted, round(resident(tuner), 1), handles(tuner), tensors(experiment.store)))
        until(lambda: experiment.status == "DONE", 300)
        kept = len(list(experiment.store.rglob("weights.safetensors")))
        ended = trials()
    with capsys.disabled():
        print("", "trials MiB handles bytes", *seen, sep="\n")
    assert ended > 2 * STEPS
    assert kept == 2
    _, memory, opened, _ = zip(*seen, strict=True)
    assert memory[-1] - memory[1] < 20
    assert opened[-1] <= opened[1] + 2
