"""How far a lineage has come."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError, DamageError, StoreError
from nni_s3d.search.lineage import ALL_STEPS_ARE_DONE, outcome_path, state_path
from nni_s3d.search.spec import Spec, parse_spec
from nni_s3d.search.store import Store
from nni_s3d.tasks.search_space import Space

_logger = logging.getLogger(__name__)
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

    def resumed(self, steps: int) -> Track:
        """Return the track of a lineage of so many steps after a stop; one that ended too early is ready."""
        too_early = self.failures or (self.reason == ALL_STEPS_ARE_DONE and self.step < steps)
        return replace(self, status="ready", failures=0, reason="") if self.status == "ended" and too_early else self


def read_track(store: Store, label: str, space: Space) -> Track:
    """Return the track of a lineage as a store holds it, or as the outcomes tell it; without any, it has not begun.

    Raises:
        S3DError: it is none of this lineage.
    """
    path = state_path(label)
    try:
        state = store.read_json(path)
    except DamageError as damage:
        _logger.warning("%s; the outcomes of the trials tell it, too", damage)
        state = None
    if state is None:
        return _retrace(store, label, space)
    where = store.url_of(path)
    if "spec" in state:
        raise StoreError(f"{where}: expected `parameters`, got `spec`, of an older version; start with a new store")
    track = build(Track, state, f"{where}: track")
    spec = parse_spec(track.parameters, space, f"{where}: parameters")
    if spec.lineage != label:
        raise StoreError(f"{where}: expected the parameters of lineage {label!r}, got those of {spec.lineage!r}")
    return track


def outcome_steps(store: Store, label: str) -> list[int]:
    """Return the numbers of the steps of which a store has an outcome, in their order."""
    folder = f"lineages/{label}"
    names = store.files(folder) if store.exists(folder) else ()
    return sorted(int(found[1]) for found in (re.fullmatch(r"([0-9]+)\.json", name) for name in names) if found)


def _retrace(store: Store, label: str, space: Space) -> Track:
    """Return the track of a lineage as the last outcome of its trials tells it; a lost one before may stay lost."""
    track, ends = Track.start(label, space), {}
    for step in reversed(outcome_steps(store, label)):
        outcome = store.read_if_whole(outcome_path(label, step)) or {}
        if (following := outcome.get("next")) is not None:
            spec = parse_spec({**following, "step": step + 1, "lineage": label}, space, store.url_of(label))
            track = Track(spec.to_parameters())
            break
        if "key" in outcome:
            ends[step] = str(outcome.get("stop", ""))
    return replace(track, status="ended", reason=ends[track.step]) if track.step in ends else track
