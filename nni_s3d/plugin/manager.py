"""Requests of the tuner to the NNI manager that started it, beyond those that NNI has an interface for."""

from __future__ import annotations

import json
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from nni.experiment import rest

_logger = logging.getLogger(__name__)
_FAILURES = ("FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")


def limit_of_trials() -> dict[str, Any] | None:
    """Return {"maxTrialNumber": after how many trials NNI ends the experiment, None if never}; or None if unknown."""
    try:
        return {"maxTrialNumber": _request("get", "/experiment")["params"].get("maxTrialNumber")}
    except Exception as error:
        _logger.warning("NNI did not say how many trials may run: %s", error)
        return None


def end_experiment() -> None:
    """Let the experiment reach DONE when there is nothing left to try.

    NNI 3.0 ends an experiment only when it has run as many trials as `maxTrialNumber` says; after a tuner's "no more
    trials" it waits for ever. Growth cannot know that number beforehand, since a lineage may end early and a failed
    trial is tried again; so at the end it is set to the number of trials that there were.
    """
    try:
        _set_limit(len(_request("get", "/trial-jobs")))
    except Exception as error:
        _logger.warning("the experiment is complete but could not be ended (%s); stop it with nnictl stop", error)


def allow_trials(limit: int | None) -> None:
    """Let an experiment that was ended go on, with the limit that it had before."""
    try:
        _set_limit(limit)
    except Exception as error:
        _logger.warning("NNI does not start more trials (%s); tell it to with nnictl update trialnum", error)


def _set_limit(limit: int | None) -> None:
    """Change the number of trials after which NNI ends the experiment."""
    profile = _request("get", "/experiment")
    profile["params"].pop("maxTrialNumber", None)
    if limit is not None:
        profile["params"]["maxTrialNumber"] = limit
    _request("put", "/experiment?update_type=MAX_TRIAL_NUM", profile)


def trial_of(parameter_id: int) -> str | None:
    """Return the id of the trial job that NNI has recorded with a parameter id, None if it cannot be found.

    Trials that start together may each be handed the parameters of the other, and NNI's record does not follow. After
    a resume it hands out the same ids again, so the last trial of an id is meant.
    """
    try:
        for job in reversed(_request("get", "/trial-jobs")):
            for recorded in job.get("hyperParameters", []):
                if json.loads(recorded)["parameter_id"] == parameter_id:
                    return str(job.get("trialJobId", job.get("id")))
    except Exception as error:
        _logger.warning("NNI did not say which trial has the parameters %d: %s", parameter_id, error)
    return None


def has_failed(trial: str) -> bool:
    """Return whether NNI has given up a trial job; False if it does not say."""
    try:
        return _request("get", f"/trial-jobs/{trial}")["status"] in _FAILURES
    except Exception as error:
        _logger.warning("NNI did not say what became of trial %s: %s", trial, error)
        return False


def _request(method: str, path: str, content: Any = None) -> Any:
    channel = urlsplit(os.environ.get("NNI_TUNER_COMMAND_CHANNEL", ""))
    prefix = channel.path.rpartition("/tuner")[0].strip("/") or None
    return rest.request(method, channel.port, path, content, prefix)
