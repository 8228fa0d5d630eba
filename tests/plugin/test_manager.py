import json

import pytest

from nni_s3d.plugin import manager
from nni_s3d.plugin.manager import allow_trials, end_experiment, has_failed, limit_of_trials, trial_of

JOBS = [
    {"trialJobId": "abc", "hyperParameters": [json.dumps({"parameter_id": 0}), json.dumps({"parameter_id": 2})]},
    {"id": "def", "hyperParameters": [json.dumps({"parameter_id": 1})]},
    {"id": "new"},
]


@pytest.fixture
def requests(monkeypatch):
    """Answer as the manager at port 8081 does, and keep what it was asked."""
    answers = {"/experiment": {"params": {"maxTrialNumber": 99, "trialConcurrency": 1}}, "/trial-jobs": JOBS}
    answers |= {f"/trial-jobs/{status}": {"status": status} for status in ("FAILED", "EARLY_STOPPED", "SUCCEEDED")}
    asked = []

    def request(method, port, path, content=None, prefix=None):
        asked.append((method, port, path, content, prefix))
        return answers[path] if method == "get" else None

    monkeypatch.setattr(manager.rest, "request", request)
    monkeypatch.setenv("NNI_TUNER_COMMAND_CHANNEL", "ws://localhost:8081/tuner")
    return asked


def test_an_experiment_ends_with_the_trials_that_there_were(requests):
    end_experiment()
    method, port, path, profile, prefix = requests[-1]
    assert (method, port, path, prefix) == ("put", 8081, "/experiment?update_type=MAX_TRIAL_NUM", None)
    assert profile == {"params": {"maxTrialNumber": 3, "trialConcurrency": 1}}


@pytest.mark.parametrize("limit", [99, None])
def test_an_experiment_gets_back_the_limit_that_it_had(requests, limit):
    profile = manager.rest.request("get", 8081, "/experiment")
    if limit is None:
        del profile["params"]["maxTrialNumber"]
    before = limit_of_trials()
    end_experiment()
    assert before == {"maxTrialNumber": limit}
    allow_trials(before["maxTrialNumber"])
    assert requests[-1][3]["params"].get("maxTrialNumber") == limit


def test_a_manager_behind_a_prefix_is_asked_there(requests, monkeypatch):
    monkeypatch.setenv("NNI_TUNER_COMMAND_CHANNEL", "ws://localhost:8081/some/where/tuner")
    assert has_failed("FAILED")
    assert requests == [("get", 8081, "/trial-jobs/FAILED", None, "some/where")]


@pytest.mark.parametrize(("parameter_id", "trial"), [(0, "abc"), (2, "abc"), (1, "def"), (3, None)])
def test_the_trial_of_a_parameter_id(requests, parameter_id, trial):
    assert trial_of(parameter_id) == trial


@pytest.mark.parametrize(("trial", "failed"), [("FAILED", True), ("EARLY_STOPPED", True), ("SUCCEEDED", False)])
def test_what_became_of_a_trial(requests, trial, failed):
    assert has_failed(trial) is failed


def test_a_manager_that_does_not_answer_is_only_a_warning(monkeypatch, caplog):
    def request(*arguments):
        raise ConnectionError("refused")

    monkeypatch.setattr(manager.rest, "request", request)
    end_experiment()
    allow_trials(7)
    assert limit_of_trials() is None
    assert trial_of(0) is None
    assert has_failed("abc") is False
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5
    assert "could not be ended (refused); stop it with nnictl stop" in caplog.text
    assert "NNI does not start more trials (refused); tell it to with nnictl update trialnum" in caplog.text
    assert "NNI did not say which trial has the parameters 0: refused" in caplog.text
    assert "NNI did not say what became of trial abc: refused" in caplog.text
