"""How far a lineage has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search.lineage import state_path
from nni_s3d.search.spec import Spec, parse_spec
from nni_s3d.search.store import Store
from nni_s3d.tasks.search_space import Space

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


def read_track(store: Store, label: str, space: Space) -> Track | None:
    """Return the track that a store holds of a lineage, if there is one.

    Raises:
        S3DError: it is none of this lineage.
    """
    path = state_path(label)
    if (state := store.read_json(path)) is None:
        return None
    where = store.url_of(path)
    if "spec" in state:
        raise StoreError(f"{where}: expected `parameters`, got `spec`, of an older version; start with a new store")
    track = build(Track, state, f"{where}: track")
    spec = parse_spec(track.parameters, space, f"{where}: parameters")
    if spec.lineage != label:
        raise StoreError(f"{where}: expected the parameters of lineage {label!r}, got those of {spec.lineage!r}")
    return track
