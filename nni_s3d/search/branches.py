"""How lineages branch: a network on the front of accuracy against cost grows on in several ways, any other one ends.

`branches: {s2d: {c: 1}, slow: {policy: {name: knapsack, growth: 0.3}}}` names the ways, beside the lineage's own. The
trial of a network plans all of them from one spectrum; the controller starts a lineage for each, with the past of the
network. At step 3, c1.3-m2-s0 branches into c1.3-m2-s0.3-s2d and c1.3-m2-s0.3-slow, and goes on itself.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.growth.settings import GrowthSettings
from nni_s3d.search.lineage import Lineage

# What trials of all ways must share: their parent's spectrum.
_SHARED = ("solver", "smoothing")
_MAY_DIFFER = {field.name for field in fields(GrowthSettings)} - set(_SHARED) | {"seed"}


def with_all_branches(lineage: Lineage, where: str) -> Lineage:
    """Return a lineage whose branches are complete: each has all settings that differ, and its own way is among them.

    So every branch knows how to get to every other one. Nothing changes in a lineage that is complete.

    Raises:
        ConfigError: a branch has a setting that is unknown, wrong or the same for all, or a name that no path may have.
    """
    if lineage.branches is None:
        return lineage
    differing = sorted({name for branch in lineage.branches.values() for name in branch})
    ways: dict[str, dict[str, Any]] = {}
    for name, branch in {"own": {}, **lineage.branches}.items():
        below = f"{where}.branches.{name}"
        if not re.fullmatch("[A-Za-z0-9_]{1,16}", name):
            raise ConfigError(f"{below}: expected a name of 1 to 16 of the characters A-Z, a-z, 0-9 and _")
        for setting in branch:
            if setting not in _MAY_DIFFER:
                raise ConfigError(f"{below}: expected some of {', '.join(sorted(_MAY_DIFFER))}, got {setting!r}")
        settings = build(Lineage, lineage.to_json() | {"branches": None} | branch, below).to_json()
        ways[name] = {setting: settings[setting] for setting in differing}
    return replace(lineage, branches=ways)


def ways_of(lineage: Lineage) -> dict[str, Lineage]:
    """Return the other ways in which a network of a lineage may grow, by their names."""
    settings = lineage.to_json()
    return {
        name: build(Lineage, settings | way, name)
        for name, way in (lineage.branches or {}).items()
        if any(settings[setting] != value for setting, value in way.items())
    }


def plan_name(way: str = "") -> str:
    """Return the name of the files of a plan; a way other than the lineage's own is named."""
    return f"plan-{way}" if way else "plan"


def branch_label(label: str, step: int, way: str) -> str:
    """Return the name of the lineage that leaves another one with a growth step, on a way of its own."""
    return f"{label}.{step}-{way}"


def parent_of(label: str) -> tuple[str, int] | None:
    """Return the lineage that a branch has left, and the number of its first step; None for what is no branch."""
    found = re.fullmatch(r"(.+)\.([0-9]+)-[A-Za-z0-9_]+", label)
    return found and (found[1], int(found[2]))


def longest_label(lineage: Lineage) -> int:
    """Return how many characters the name of a branch of branches may get."""
    ways = lineage.branches or {"": {}}
    longest = max(ways, key=len)
    label = lineage.label
    for step in range(1, lineage.steps + 1):
        label = branch_label(label, step, longest)
    return len(label) if len(ways) > 1 else len(lineage.label)


def descends(label: str, ancestor: str) -> bool:
    """Whether a lineage has branched from another one, or from a branch of it."""
    return re.fullmatch(rf"{re.escape(ancestor)}(\.[0-9]+-[A-Za-z0-9_]+)+", label) is not None
