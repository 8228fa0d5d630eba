"""S3D as a tuner, for `nnictl create`.

In an experiment file it is `className: nni_s3d.plugin.tuner.S3DTuner` or, after `nni-s3d register`, `name: S3D`; its
`classArgs` are the fields of `nni_s3d.search.lineage.Lineage`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nni.tuner import Tuner
from nni.utils import ClassArgsValidator

from nni_s3d.errors import S3DError
from nni_s3d.plugin.manager import allow_trials, end_experiment, has_failed, limit_of_trials, trial_of
from nni_s3d.plugin.plain_json import read_plain_json
from nni_s3d.search.controller import Controller
from nni_s3d.search.folder import Folder
from nni_s3d.search.read_lineages import lineages
from nni_s3d.search.store import Store, store_url
from nni_s3d.tasks.search_space import Space

_logger = logging.getLogger(__name__)
# How long to hold back an answer "no more trials" while the end of a running trial may be about to arrive: NNI tells
# of it on another thread than the one that asks, and ends an experiment in which nothing runs and nothing is promised.
_PATIENCE = 5.0
_LIMIT = "limit.json"  # in NNI's folder for tuners: `maxTrialNumber` as the user gave it


class S3DTuner(Tuner):
    """Grows one or several lineages; every trial is one growth step.

    Args:
        **settings: the fields of `nni_s3d.search.lineage.Lineage`, and `lineages`, a list of what differs between
            several.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        if os.environ.get("SDK_PROCESS") == "dispatcher":
            read_plain_json()
        self._lineages = lineages(settings)
        self._resume = False
        self._controller: Controller | None = None
        # NNI forgets the parameters of trials when it is given fewer than it asked for, so they are kept here.
        self._started: dict[int, dict[str, Any]] = {}
        self._unused: list[int] = []
        self._send: Callable[[int, dict[str, Any]], None] | None = None
        self._lock = threading.Lock()
        self._ended = False

    @property
    def controller(self) -> Controller:
        """The controller, once NNI has told the search space."""
        if self._controller is None:
            raise S3DError("S3DTuner: expected a search space before anything else")
        return self._controller

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Take the seed widths from the search space; it cannot change later."""
        if self._controller is None:
            self._controller = Controller(self._lineages, Space.parse(search_space), Store(_store()), self._resume)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Return one spec; NNI calls `generate_multiple_parameters` instead."""
        specs = self.generate_multiple_parameters([parameter_id], **kwargs)
        if not specs:
            import nni

            raise nni.NoMoreTrialError("no growth step can start now")
        return specs[0]

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> list[dict[str, Any]]:
        """Return the specs that can start now, possibly none; the rest follows when trials end."""
        self._send = kwargs.get("st_callback", self._send)
        if self._resume:
            self._look_for_the_lost()
        specs: list[dict[str, Any]] = []
        for number, parameter_id in enumerate(parameter_id_list):
            spec = self.controller.next(timeout=0.0 if specs else _PATIENCE)
            with self._lock:
                spec = spec or self.controller.next()  # once no trial's end can miss the ids that are left
                if spec is None:
                    self._unused.extend(parameter_id_list[number:])
                    break
                self._started[parameter_id] = spec
                specs.append(spec)
        if specs:
            self._allow_trials()
        self._end_if_done()
        return specs

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Note that a trial has finished; what came of it is in the store."""
        self.controller.finished(self._started.get(parameter_id, {}))
        self._send_waiting()

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Note the end of a trial that has failed; one that has succeeded has reported its result before.

        The id may be another trial's, since NNI may hand trials that start together each other's parameters; the
        result of a trial comes with the right id. So it is the store that says which step this trial was running.
        """
        if success:
            return
        trial = trial_of(parameter_id) if len(self.controller.running) > 1 else None
        ran = trial and self.controller.run_by(trial)
        self.controller.failed(ran or self._started.get(parameter_id, {}))
        self._send_waiting()

    def import_data(self, data: list[Any]) -> None:
        """Take the results that NNI hands to a resumed tuner."""
        for entry in data:
            self.controller.finished(entry["parameter"])
        self._send_waiting()

    def load_checkpoint(self) -> None:
        """Resume; the state itself is in the store, where it is written with every decision."""
        self._resume = True

    def save_checkpoint(self) -> None:
        """Do nothing: there is no state that is not in the store."""

    def _look_for_the_lost(self) -> None:
        """Find out what became of the trials that were running when the experiment was stopped.

        NNI runs them again by itself, and does not tell when one of them fails. It forgets those that it was about to
        run again when it was stopped once more.
        """
        run_again = _run_again_by_nni(self._send)
        with self._lock:
            unknown = [spec for spec in self.controller.running if spec not in self._started.values()]
        for spec in unknown:
            if run_again is not None and not any(_same_step(spec, other) for other in run_again):
                self.controller.interrupted(spec)
                continue
            trial = self.controller.trial_of(spec)
            if trial is not None and has_failed(trial):
                self.controller.failed(spec)

    def _send_waiting(self) -> None:
        """Start what can start now, under ids that NNI handed out before."""
        with self._lock:
            while self._unused and self._send is not None:
                spec = self.controller.next()
                if spec is None:
                    break
                parameter_id = self._unused.pop(0)
                self._started[parameter_id] = spec
                self._send(parameter_id, spec)
        self._end_if_done()

    def _end_if_done(self) -> None:
        """End the experiment when there is nothing left to try; its limit of trials is kept for a resume."""
        if not self.controller.done or self._ended:
            return
        self._ended = True
        limit, folder = limit_of_trials(), self.get_checkpoint_path()
        if limit is not None and folder:
            try:
                Folder(folder).write_json(_LIMIT, limit)
            except S3DError as error:
                _logger.error("%s; after a resume, nnictl update trialnum lets trials start", error)
        end_experiment()

    def _allow_trials(self) -> None:
        """Give an experiment that was ended and resumed the limit that it had before."""
        folder = self.get_checkpoint_path() if self._resume else None
        try:
            if folder and (before := Folder(folder).read_json(_LIMIT, "maxTrialNumber")):
                allow_trials(before["maxTrialNumber"])
                Folder(folder).remove(_LIMIT)
        except S3DError as error:
            _logger.error("%s; nnictl update trialnum lets trials start", error)


def _run_again_by_nni(send: Callable[..., None] | None) -> list[Any] | None:
    """Return the parameters of the trials that NNI runs again after a resume, None if it does not say."""
    dispatcher = getattr(send, "__self__", None)
    found = getattr(dispatcher, "recovered_trial_params", None)
    return None if found is None else list(found.values())


def _same_step(one: dict[str, Any], other: Any) -> bool:
    return isinstance(other, dict) and all(one[key] == other.get(key) for key in ("lineage", "step"))


def _store() -> str:
    """Return the URL of the store: a folder of the experiment, which NNI names by its log directory."""
    logs = os.environ.get("NNI_LOG_DIRECTORY")
    return store_url(Path(logs).resolve().parent if logs else None)


class S3DArgsValidator(ClassArgsValidator):
    """Checks classArgs when an experiment is created."""

    def validate_class_args(self, **kwargs: Any) -> None:
        """Raise ConfigError if a setting is unknown, of the wrong type or out of range."""
        lineages(kwargs)
