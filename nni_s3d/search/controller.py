"""The decisions that tuner and strategy share: which spec comes next, what is tried again, when a lineage ends.

Imports no NNI. All state is in the store: a fresh controller that resumes goes on where the last one stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path, state_path, trial_path
from nni_s3d.search.spec import Spec, parse_spec
from nni_s3d.search.store import Store
from nni_s3d.tasks.search_space import Space

_logger = logging.getLogger(__name__)
TRIES = 2  # a trial that fails is tried again once
STATUSES = ("ready", "running", "ended")


@dataclass(frozen=True)
class Track:
    """Where a lineage is."""

    parameters: dict[str, Any]  # of the step that is about to start, runs, or was the last one; see `Spec`
    status: str = "ready"  # "ready" -> "running" -> "ready" ... -> "ended"
    failures: int = 0  # of this step
    reason: str = ""  # why it ended

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ConfigError(f"status: expected one of {', '.join(STATUSES)}, got {self.status!r}")

    @classmethod
    def start(cls, label: str, space: Space) -> Track:
        """Return the track of a lineage that has not begun."""
        return cls(Spec(dict(space.low), lineage=label).to_parameters())

    @property
    def step(self) -> int:
        """Number of the step that `parameters` describe."""
        return int(self.parameters["step"])


class Controller:
    """Hands out growth steps of several lineages, one at a time each, and learns from the store what came of them.

    Safe to be called from several threads.

    Args:
        lineages: their settings; every label is unique.
        space: its low widths are those of the seed networks.
        store: where trials leave their outcomes. The settings are written there, for the trials to read.
        resume: go on with the tracks found in the store. A step that was running there counts as still running until
            its outcome is there or `finished` or `failed` says so.

    Raises:
        S3DError: the store holds a lineage of this name with other settings, or a track that is none of this lineage;
            nothing in it was touched.
    """

    def __init__(self, lineages: Sequence[Lineage], space: Space, store: Store, resume: bool = False) -> None:
        self._store, self._space = store, space
        self._changed = threading.Condition()
        store.agree({settings_path(lineage.label): lineage.to_json() for lineage in lineages})
        self._tracks: dict[str, Track] = {}
        tracks = {lineage.label: self._resumed(lineage.label) if resume else None for lineage in lineages}
        for label, track in tracks.items():
            self._save(label, track or Track.start(label, space))
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
        said = self._store.read_json(trial_path(parameters["lineage"], parameters["step"])) or {}
        return said.get("trial")

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
            label = self._first_with("ready")
            if label is None:
                return None
            track = replace(self._tracks[label], status="running")
            self._save(label, track)
            return track.parameters

    def finished(self, parameters: dict[str, Any]) -> None:
        """Take note that a trial has finished; its outcome is in the store. Saying it again changes nothing."""
        with self._changed:
            if (label := self._running(parameters)) is not None:
                self._advance(label)

    def failed(self, parameters: dict[str, Any], reason: str = "") -> None:
        """Take note that a trial has failed: it is tried again once, then its lineage ends."""
        with self._changed:
            if (label := self._running(parameters)) is not None:
                outcome = self._outcome(label, self._tracks[label].step)
                self._retry(label, reason or outcome.get("error") or "the trial ended without a result")

    def _resumed(self, label: str) -> Track | None:
        """Return the track that the store holds of a lineage, if there is one."""
        path = state_path(label)
        if (state := self._store.read_json(path)) is None:
            return None
        where = self._store.url_of(path)
        if "spec" in state:
            raise StoreError(f"{where}: expected `parameters`, got `spec`, of an older version; start with a new store")
        track = build(Track, state, f"{where}: track")
        spec = parse_spec(track.parameters, self._space, f"{where}: parameters")
        if spec.lineage != label:
            raise StoreError(f"{where}: expected the parameters of lineage {label!r}, got those of {spec.lineage!r}")
        return track

    def _outcome(self, label: str, step: int) -> dict[str, Any]:
        """Return what came of a step: its key and the next spec or why there is none, an error, or nothing yet."""
        return self._store.read_json(outcome_path(label, step)) or {}

    def _first_with(self, status: str) -> str | None:
        """Return the first lineage of a status."""
        return next((label for label, track in self._tracks.items() if track.status == status), None)

    def _running(self, parameters: dict[str, Any]) -> str | None:
        """Return the lineage that is running this very step."""
        label = parameters.get("lineage")
        track = self._tracks.get(str(label))
        return label if track and track.status == "running" and track.step == parameters.get("step") else None

    def _advance(self, label: str) -> None:
        track = self._tracks[label]
        outcome = self._outcome(label, track.step)
        if "key" not in outcome:
            self._retry(label, outcome.get("error", "the trial left no outcome"))
        elif outcome.get("next") is None:
            reason = outcome.get("stop", "")
            _logger.info("lineage %s ends after step %d: %s", label, track.step, reason)
            self._save(label, replace(track, status="ended", reason=reason))
        else:
            following = {**outcome["next"], "step": track.step + 1, "lineage": label}
            spec = parse_spec(following, self._space, f"{self._store.url_of(outcome_path(label, track.step))}: next")
            self._save(label, Track(spec.to_parameters()))

    def _retry(self, label: str, reason: str) -> None:
        track = self._tracks[label]
        failures = track.failures + 1
        if failures < TRIES:
            _logger.warning("step %d of lineage %s failed and is tried again: %s", track.step, label, reason)
            self._save(label, replace(track, status="ready", failures=failures))
        else:
            _logger.error("lineage %s ends: step %d failed %d times: %s", label, track.step, failures, reason)
            self._save(label, replace(track, status="ended", failures=failures, reason=reason))

    def _save(self, label: str, track: Track) -> None:
        with self._changed:
            self._tracks[label] = track
            self._store.write_json(state_path(label), asdict(track))
            self._changed.notify_all()
