"""The front of accuracy against cost of all networks of an experiment: those that no other one is better than."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Front:
    """Networks and what each is worth."""

    networks: dict[str, tuple[str, Mapping[str, Any]]] = field(
        default_factory=dict
    )  # {key: (what to call it, outcome)}

    def add(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Take note of a network; adding it again changes nothing."""
        self.networks.setdefault(outcome["key"], (name, outcome))

    def better(self, outcome: Mapping[str, Any], cost: str, but: Collection[str] = ()) -> str | None:
        """Return a network that is as accurate and as cheap as another one, and better in one of the two, if any is.

        Args:
            outcome: what a trial has left: {"default": accuracy, "params": ..., "macs": ...} and more.
            cost: "params" or "macs".
            but: keys of networks that do not count.
        """
        own = (outcome["default"], -outcome[cost])
        for key, (name, other) in self.networks.items():
            values = (other["default"], -other[cost])
            if key not in but and values != own and all(value >= than for value, than in zip(values, own, strict=True)):
                return name
        return None
