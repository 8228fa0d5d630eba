"""Which lineages with branches go on: those whose last network is on the front of accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_s3d.search.front import Front
from nni_s3d.search.lineage import Lineage


class Contest:
    """The networks of all lineages that branch, and of each lineage those before its next step."""

    def __init__(self) -> None:
        self._front = Front()
        self._past: dict[str, list[Mapping[str, Any]]] = {}

    def enter(self, label: str, step: int, outcome: Mapping[str, Any]) -> None:
        """Let the network of a step take part."""
        self._front.add(f"step {step} of lineage {label}", outcome)
        self._past.setdefault(label, []).append(outcome)

    def branch_off(self, label: str, branch: str) -> None:
        """Give a branch the past of the lineage that it has left."""
        self._past[branch] = [*self._past[label]]

    def better(self, lineage: Lineage) -> str | None:
        """Return a network that is better than the one that a lineage grows from.

        Seed networks, which cost the same, all grow; and a step may fail to improve on those before it.
        """
        past = self._past.get(lineage.label, [])
        if lineage.branches is None or len(past) < 2:
            return None
        return self._front.better(past[-1], lineage.front, but=[outcome["key"] for outcome in past])
