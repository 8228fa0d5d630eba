"""The decisions that tuner and strategy share: which spec comes next, what is tried again, when a lineage ends.

Imports no NNI. All state is in the store: a fresh controller that resumes goes on where the last one stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from nni_s3d.errors import S3DError, StoreError
from nni_s3d.search.branches import branch_label, branches_found, forget_branch, leave_past, ways_of
from nni_s3d.search.contest import Contest
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path, state_path, trial_path
from nni_s3d.search.retention import remove_tensors
from nni_s3d.search.spec import parse_spec
from nni_s3d.search.store import Store
from nni_s3d.search.track import Track, read_track
from nni_s3d.tasks.search_space import Space

_logger = logging.getLogger(__name__)
TRIES = 2  # a trial that fails is tried again once


class Controller:
    """Hands out growth steps of several lineages, one at a time each, and learns from the store what came of them.

    Safe to be called from several threads.

    Args:
        lineages: their settings; every label is unique.
        space: its low widths are those of the seed networks.
        store: where trials leave their outcomes. The settings are written there, for the trials to read.
        resume: go on with the tracks found in the store. A step that was running there counts as still running until
            its outcome is there or `finished`, `failed` or `interrupted` says so. A lineage that ended with a failure
            tries that step again, and one that has got more steps goes on.

    Raises:
        S3DError: the store holds a lineage of this name with other settings, or a track that is none of this lineage;
            nothing in it was touched.
    """

    def __init__(self, lineages: Sequence[Lineage], space: Space, store: Store, resume: bool = False) -> None:
        self._store, self._space = store, space
        self._changed = threading.Condition()
        self._agree(lineages)
        self._tracks: dict[str, Track] = {}
        self._contest = Contest()
        self._lineages = {lineage.label: lineage for lineage in lineages}
        branches = branches_found(store, self._lineages)
        if resume:
            self._agree([*branches.values()])
            self._lineages |= branches
        for label in () if resume else branches:  # of an earlier run, which do not run now
            forget_branch(store, label)
        start = partial(read_track, store) if resume else Track.start
        tracks = {label: start(label, space) for label in self._lineages}
        for label, track in tracks.items():
            self._save(label, track.resumed(self._lineages[label].steps))
            self._enter(label, track)
        self._end_those_off_the_front()
        self.collect_outcomes()

    @property
    def done(self) -> bool:
        """Whether all lineages have ended."""
        with self._changed:
            return all(track.status == "ended" for track in self._tracks.values())

    @property
    def running(self) -> list[dict[str, Any]]:
        """The parameters of the trials that have been handed out and have not ended."""
        with self._changed:
            return [track.parameters for track in self._tracks.values() if track.status == "running"]

    def trial_of(self, parameters: dict[str, Any]) -> str | None:
        """Return the NNI trial that has said to run these parameters, if one came to say so."""
        return self._store.read_anyway(trial_path(parameters["lineage"], parameters["step"])).get("trial")

    def run_by(self, trial: str) -> dict[str, Any] | None:
        """Return which of the running parameters an NNI trial has said to run."""
        return next((parameters for parameters in self.running if self.trial_of(parameters) == trial), None)

    def collect_outcomes(self) -> None:
        """Take note of the running trials whose outcomes are in the store by now."""
        for parameters in self.running:
            if "key" in self._outcome(parameters["lineage"], parameters["step"]):
                self.finished(parameters)

    @property
    def tracks(self) -> dict[str, Track]:
        """Where every lineage is."""
        with self._changed:
            return dict(self._tracks)

    def next(self, timeout: float = 0.0) -> dict[str, Any] | None:
        """Return the parameters of a trial that can start now, or None.

        Args:
            timeout: seconds to wait for a running trial to make one possible.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._first_with("ready") or not self._first_with("running"), timeout)
            if (label := self._first_with("ready")) is None:
                return None
            track = replace(self._tracks[label], status="running")
            self._save(label, track)
            return track.parameters

    def finished(self, parameters: dict[str, Any]) -> None:
        """Take note that a trial has finished; its outcome is in the store. Saying it again changes nothing."""
        with self._changed:
            if (label := self._running(parameters)) is not None:
                self._advance(label)

    def failed(self, parameters: dict[str, Any], reason: str = "", again: bool = True) -> None:
        """Take note that a trial has failed: it is tried again once, then its lineage ends.

        Args:
            parameters: those of the trial.
            reason: why; by default what the trial has left to say of it.
            again: whether the same may go well another time; the trial may have left to say that it may not.
        """
        with self._changed:
            if (label := self._running(parameters)) is not None:
                outcome = self._outcome(label, self._tracks[label].step)
                said = reason or outcome.get("error") or "the trial ended without a result"
                self._fail(label, said, again and outcome.get("again", True))

    def interrupted(self, parameters: dict[str, Any]) -> None:
        """Take note that nobody runs a trial any more, through no fault of its own: it is run again."""
        with self._changed:
            if (label := self._running(parameters)) is not None:
                self._save(label, replace(self._tracks[label], status="ready"))

    def _outcome(self, label: str, step: int) -> dict[str, Any]:
        """Return what came of a step: its key and the next spec or why there is none, an error, or nothing yet."""
        return self._store.read_anyway(outcome_path(label, step))

    def _first_with(self, status: str) -> str | None:
        """Return the first lineage of a status; of those that branch, one that has come least far."""
        steps = {
            label: 0 if self._lineages[label].branches is None else track.step
            for label, track in self._tracks.items()
            if track.status == status
        }
        return min(steps, key=lambda label: steps[label], default=None)

    def _running(self, parameters: dict[str, Any]) -> str | None:
        """Return the lineage that is running this very step."""
        label = parameters.get("lineage")
        track = self._tracks.get(str(label))
        return label if track and track.status == "running" and track.step == parameters.get("step") else None

    def _advance(self, label: str) -> None:
        track = self._tracks[label]
        outcome = self._outcome(label, track.step)
        if "key" not in outcome:
            self._fail(label, outcome.get("error", "the trial left no outcome"), outcome.get("again", True))
            return
        try:
            self._go_on_after(label, track, outcome)
        except S3DError as error:  # another version wrote the outcome, or the disk is full
            self._fail(label, str(error), again=False)
        for key in self._contest.leave(self._lineages):
            with suppress(StoreError):  # nothing depends on what is left
                remove_tensors(self._store, key)

    def _go_on_after(self, label: str, track: Track, outcome: dict[str, Any]) -> None:
        self._contest.enter(label, track.step, outcome)
        if not self._contest.better(self._lineages[label]):
            self._branch_off(label, outcome)
        if outcome.get("next") is None:
            self._end(label, track, outcome.get("stop", ""))
        else:
            self._go_on(label, track.step, outcome)
        self._end_those_off_the_front()

    def _go_on(self, label: str, step: int, outcome: Mapping[str, Any]) -> None:
        """Let the step after this one be the next of a lineage."""
        where = f"{self._store.url_of(outcome_path(label, step))}: next"
        following = {**outcome["next"], "step": step + 1, "lineage": label}
        self._save(label, Track(parse_spec(following, self._space, where).to_parameters()))

    def _branch_off(self, label: str, outcome: Mapping[str, Any]) -> None:
        """Start a lineage, with the past of this one, for each other way in which a network grows.

        This one has not advanced yet, so that a controller that is killed here begins here again.
        """
        step = self._tracks[label].step
        for way, settings in ways_of(self._lineages[label]).items():
            branch = replace(settings, name=branch_label(label, step + 1, way))
            following = outcome.get("branches", {}).get(way)
            if following is None or branch.label in self._tracks:
                continue
            self._agree([branch])
            last = leave_past(self._store, branch.label, outcome)
            self._lineages[branch.label] = branch
            self._contest.branch_off(label, branch.label)
            self._go_on(branch.label, step, last)

    def _enter(self, label: str, track: Track) -> None:
        """Let the networks of a resumed lineage take part again."""
        for step in range(track.step + (track.status == "ended")):
            if "key" in (outcome := self._outcome(label, step)):
                self._contest.enter(label, step, outcome)

    def _end_those_off_the_front(self) -> None:
        """End lineages that would grow a network that another one is better than."""
        for label, track in self._tracks.items():
            if track.status == "ready" and (better := self._contest.better(self._lineages[label])):
                self._end(label, track, f"{better} is better")

    def _end(self, label: str, track: Track, reason: str) -> None:
        _logger.info("lineage %s ends: %s", label, reason)
        self._save(label, replace(track, status="ended", reason=reason))

    def _fail(self, label: str, reason: str, again: bool) -> None:
        track = self._tracks[label]
        failures = track.failures + 1
        if again and failures < TRIES:
            _logger.warning("step %d of lineage %s failed and is tried again: %s", track.step, label, reason)
            with suppress(StoreError):  # the trial will say so
                self._store.remove(outcome_path(label, track.step))  # or the next try would be taken for this one
                self._agree([self._lineages[label]])
            self._save(label, replace(track, status="ready", failures=failures))
            return
        times = f"{failures} times" if failures > 1 else "in a way that it would again"
        _logger.error("lineage %s ends: step %d failed %s: %s", label, track.step, times, reason)
        self._save(label, replace(track, status="ended", failures=failures, reason=reason))

    def _agree(self, lineages: Sequence[Lineage]) -> None:
        """Make sure that the trials find the settings."""
        self._store.agree({settings_path(one.label): one.to_json() for one in lineages}, but=["steps"])

    def _save(self, label: str, track: Track) -> None:
        with self._changed:
            self._tracks[label] = track
            self._changed.notify_all()
            try:
                self._store.write_json(state_path(label), asdict(track))
            except StoreError as error:  # it follows from the outcomes, too
                _logger.error("%s; lineage %s goes on without it", error, label)
