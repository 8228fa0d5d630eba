"""How lineages branch: a network on the front of accuracy against cost grows on in several ways, any other one ends.

`branches: {s2d: {c: 1}, slow: {policy: {name: knapsack, growth: 0.3}}}` names the ways, beside the lineage's own. The
trial of a network plans all of them from one spectrum; the controller starts a lineage for each, with the past of the
network. At step 3, c1.3-m2-s0 branches into c1.3-m2-s0.3-s2d and c1.3-m2-s0.3-slow, and goes on itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.growth.settings import UNUSED, GrowthSettings
from nni_s3d.search.lineage import Lineage, outcome_path, state_path
from nni_s3d.search.store import Store

OWN = "own"  # the way that a lineage goes by itself
# Not what all ways share: their parent's spectrum, the seed, and the limits of growth.
_MAY_DIFFER = {field.name for field in fields(GrowthSettings)} - {"solver", "smoothing", "max_params", "max_macs"}


def check_branches(branches: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Make sure that branches have names that paths may have, and settings in which ways may differ.

    Raises:
        ConfigError: one has not.
    """
    for name, branch in branches.items():
        if name == OWN or not re.fullmatch("[A-Za-z0-9_]{1,16}", name):
            expected = f"names of 1 to 16 of the characters A-Z, a-z, 0-9 and _, other than {OWN!r}"
            raise ConfigError(f"{where}.branches: expected {expected}, got {name!r}")
        for setting in branch:
            if setting not in _MAY_DIFFER:
                expected = f"expected some of {', '.join(sorted(_MAY_DIFFER))}"
                raise ConfigError(f"{where}.branches.{name}: {expected}, got {setting!r}")


def with_all_branches(lineage: Lineage, where: str) -> Lineage:
    """Return a lineage whose branches are complete: each has all settings that differ, and its own way is among them.

    So every branch knows how to get to every other one. Nothing changes in a lineage that is complete.

    Raises:
        ConfigError: a setting of a branch is out of range, or two ways are the same.
    """
    if lineage.branches is None:
        return lineage
    built: dict[str, dict[str, Any]] = {}
    for name, branch in {OWN: {}, **lineage.branches}.items():
        settings = build(Lineage, _filled(lineage, branch), f"{where}.branches.{name}").to_json()
        if same := next((other for other in built if built[other] == settings), None):
            raise ConfigError(f"{where}.branches.{name}: expected another way than {same}, got the same settings")
        built[name] = settings
    differing = [key for key in built[OWN] if any(settings[key] != built[OWN][key] for settings in built.values())]
    return replace(lineage, branches={n: {key: settings[key] for key in differing} for n, settings in built.items()})


def _filled(lineage: Lineage, branch: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a branch; what its method does not use is no longer that of the lineage."""
    settings: dict[str, Any] = {**lineage.to_json(), "branches": None, "front": Lineage.front, **branch}
    if settings["method"] != lineage.method and settings["method"] in UNUSED:
        unused = (*UNUSED[settings["method"]], *(["copies"] if settings["method"] != "split" else []))
        settings |= {name: getattr(GrowthSettings, name) for name in unused if name not in branch}
    return settings


def ways_of(lineage: Lineage) -> dict[str, Lineage]:
    """Return the other ways in which a network of a lineage may grow, by their names."""
    settings = lineage.to_json()
    return {
        name: build(Lineage, {**settings, "keep": lineage.keep} | way, name)
        for name, way in (lineage.branches or {}).items()
        if any(settings[setting] != value for setting, value in way.items())
    }


def plan_name(way: str = "") -> str:
    """Return the name of the files of a plan; a way other than the lineage's own is named."""
    return f"plan-{way}" if way else "plan"


def branch_label(label: str, step: int, way: str) -> str:
    """Return the name of the lineage that leaves another one with a growth step, on a way of its own."""
    return f"{label}.{step}-{way}"


@dataclass(frozen=True)
class Branch:
    """Where a lineage has left another one."""

    parent: str  # label of the other one
    step: int  # number of its own first step
    way: str  # in which it goes


def parent_of(label: str) -> Branch | None:
    """Return where a lineage has branched, None for what is no branch."""
    found = re.fullmatch(r"(.+)\.([0-9]+)-([A-Za-z0-9_]+)", label)
    return None if found is None else Branch(found[1], int(found[2]), found[3])


def inherited(outcome: Mapping[str, Any], branch: Branch, step: int) -> dict[str, Any]:
    """Return what a branch has for the outcome of a step before its own first one, given that of its parent."""
    if step < branch.step - 1:
        return dict(outcome)
    following = outcome["branches"][branch.way]
    return {**outcome, "plan": plan_name(branch.way), "next": following, "branches": {}}


def leave_past(store: Store, label: str, last: Mapping[str, Any]) -> dict[str, Any]:
    """Write the outcomes of the steps that a branch shares with its parent, and return the last of them.

    What is damaged or lost of the earlier ones is made again where it is needed.

    Args:
        store: of both.
        label: of the branch.
        last: what came of the last step that they share, as the parent has it.
    """
    branch = parent_of(label)
    assert branch is not None
    for step in range(branch.step - 1):
        if "key" in (outcome := store.read_if_whole(outcome_path(branch.parent, step)) or {}):
            store.write_json(outcome_path(label, step), inherited(outcome, branch, step))
    own = inherited(last, branch, branch.step - 1)
    store.write_json(outcome_path(label, branch.step - 1), own)
    return own


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


def branches_found(store: Store, known: Mapping[str, Lineage]) -> dict[str, Lineage]:
    """Return the lineages of a store that have branched from known ones; what they are follows from those."""
    if all(lineage.branches is None for lineage in known.values()):
        return {}
    labels = (label for label in store.folders("lineages") if any(descends(label, ancestor) for ancestor in known))
    return {label: _lineage_of(label, known) for label in labels if any(map(store.exists, _signs(label)))}


def forget_branch(store: Store, label: str) -> None:
    """Let a branch of an earlier run be found no more; its networks stay."""
    for sign in _signs(label):
        store.remove(sign)


def _signs(label: str) -> tuple[str, str]:
    """Return the files of which one at least is there when a lineage has branched; see `leave_past`."""
    branch = parent_of(label)
    assert branch is not None
    return outcome_path(label, branch.step - 1), state_path(label)


def _lineage_of(label: str, known: Mapping[str, Lineage]) -> Lineage:
    if label in known:
        return known[label]
    branch = parent_of(label)
    ways = ways_of(_lineage_of(branch.parent, known)) if branch else {}
    if branch is None or branch.way not in ways:
        raise ConfigError(f"lineage {label}: expected one of {', '.join(ways) or 'no branches'} at the end of its name")
    return replace(ways[branch.way], name=label)
