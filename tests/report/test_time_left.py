"""The time that an experiment will still take, against experiments whose speed is known."""

import pytest

from nni_s3d.report.nni_database import NNITrial
from nni_s3d.report.time_left import time_left
from nni_s3d.search.lineage import TUNER

CONSTANT, PER_MAC = 4.0, 2e-9  # seconds of a trial, and of each of its MACs


def trial(number, macs, start, lineage="c1.3-m2-s0", step=None, status="SUCCEEDED"):
    """Return a trial that starts at a second and takes as long as the constants say."""
    parameters = {"conv0": 4, "lineage": lineage, "step": number if step is None else step}
    seconds = CONSTANT + PER_MAC * macs
    over = status == "SUCCEEDED"
    metrics = {"default": 0.5, "train_macs": macs, "step": parameters["step"]} if over else {}
    ended = round(1000 * (start + seconds)) if over else None
    return NNITrial(str(number), number, status, parameters, metrics, 1000 * start, ended, "")


def growth(**settings):
    return {"trialConcurrency": 1, "tuner": {"className": TUNER, "classArgs": settings}}


def test_steps_to_come_cost_as_much_more_as_those_before():
    trials = [trial(step, 1e9 * 1.5**step, 100 * (step + 1)) for step in range(3)]
    left = time_left(trials, growth(steps=5), now=1000)
    assert left == pytest.approx(sum(CONSTANT + PER_MAC * 1e9 * 1.5**step for step in (3, 4, 5)), rel=1e-6)


def test_what_runs_already_is_taken_off():
    trials = [trial(step, 1e9 * 1.5**step, 100 * (step + 1)) for step in range(3)]
    running = trial(3, 0, 998, status="RUNNING")
    whole = time_left(trials, growth(steps=5), now=1000)
    assert time_left([*trials, running], growth(steps=5), now=1000) == pytest.approx(whole - 2)


def test_other_tuners_have_a_number_of_trials():
    trials = [trial(n, macs, 100 * (n + 1), lineage=None, step=0) for n, macs in enumerate([1e9, 3e9])]
    config = {"trialConcurrency": 1, "maxTrialNumber": 6, "tuner": {"name": "TPE"}}
    assert time_left(trials, config, now=1000) == pytest.approx(4 * (CONSTANT + PER_MAC * 2e9), rel=1e-6)
    assert time_left(trials, config | {"trialConcurrency": 2}, now=1000) == pytest.approx(
        2 * (CONSTANT + PER_MAC * 2e9), rel=1e-6
    )


def test_lineages_side_by_side():
    settings = growth(steps=1, lineages=[{"seed": 0}, {"seed": 1}])
    trials = [trial(0, 1e9, 100, step=0), trial(1, 3e9, 200, "c1.3-m2-s1", step=0)]
    expected = 2 * CONSTANT + PER_MAC * (1e9 + 3e9)
    assert time_left(trials, settings, now=1000) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "config",
    [{}, {"tuner": {"name": "TPE"}}, growth(steps="x"), {"maxTrialNumber": None}, {"tuner": None}],
    ids=str,
)
def test_unknown_ends_are_not_told(config):
    assert time_left([trial(0, 1e9, 100)], config, now=1000) is None


def test_nothing_is_told_before_a_trial_has_finished():
    assert time_left([], growth(steps=5), now=1000) is None


def test_an_experiment_that_is_over_has_no_time_left():
    trials = [trial(step, 1e9, 100 * (step + 1)) for step in range(6)]
    assert time_left(trials, growth(steps=5), now=1000) == 0
