"""Which networks of all lineages matter, by accuracy and cost: those that grow on, and those that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_s3d.search.front import Front
from nni_s3d.search.lineage import Lineage


class Contest:
    """The networks of all lineages, and of each lineage those before its next step."""

    def __init__(self) -> None:
        self._front = Front()
        self._past: dict[str, list[Mapping[str, Any]]] = {}
        self._left: set[str] = set()

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

    def leave(self, lineages: Mapping[str, Lineage]) -> set[str]:
        """Return, once, the keys of the networks whose weights no lineage keeps, as their settings say."""
        kept: set[str] = set()
        for label, past in self._past.items():
            kept |= {outcome["key"] for outcome in past if self._is_kept(outcome, past, lineages[label])}
        leaving = {outcome["key"] for past in self._past.values() for outcome in past} - kept - self._left
        self._left |= leaving
        return leaving

    def _is_kept(self, outcome: Mapping[str, Any], past: list[Mapping[str, Any]], lineage: Lineage) -> bool:
        if lineage.keep == "all" or outcome is past[-1]:
            return True
        return lineage.keep == "front" and self._front.better(outcome, lineage.front) is None
