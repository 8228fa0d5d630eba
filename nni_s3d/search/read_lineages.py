"""Read the settings of lineages, as users write them and as stores keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.search.branches import check_branches, descends, longest_label, with_all_branches
from nni_s3d.search.lineage import Lineage
from nni_s3d.search.spec import LONGEST_NAME


def lineages(settings: Mapping[str, Any], where: str = "classArgs") -> list[Lineage]:
    """Read the settings of a tuner or strategy: shared ones, and a list `lineages` of what differs.

    Raises:
        ConfigError: an unknown key, a wrong type, a value out of range, or two lineages of one name.
    """
    shared = {key: value for key, value in settings.items() if key != "lineages"}
    differing = settings.get("lineages")
    if differing is None:
        return _with_names_of_their_own([_read_new(shared, where)], where)
    if not isinstance(differing, Sequence) or isinstance(differing, str) or not differing:
        raise ConfigError(f"{where}.lineages: expected a list of settings, got {differing!r}")
    made = []
    for i, difference in enumerate(differing):
        if not isinstance(difference, Mapping):
            raise ConfigError(f"{where}.lineages[{i}]: expected a mapping, got {difference!r}")
        made.append(_read_new({**shared, **difference}, f"{where}.lineages[{i}]"))
    return _with_names_of_their_own(made, where)


def _read_new(settings: Mapping[str, Any], where: str) -> Lineage:
    """Read the settings of a lineage as a user writes them, whose branches are not complete yet."""
    if settings.get("branches"):
        check_branches(build(Lineage, settings, where).branches or {}, where)
    return read_lineage(settings, where)


def _with_names_of_their_own(made: list[Lineage], where: str) -> list[Lineage]:
    labels = [lineage.label for lineage in made]
    for lineage in made:
        if labels.count(lineage.label) > 1:
            raise ConfigError(f"{where}.lineages: two are called {lineage.label!r}; give each a name of its own")
        if (longest := longest_label(lineage)) > LONGEST_NAME:
            expected = f"shorter names or fewer steps, so that names of branches have at most {LONGEST_NAME} characters"
            raise ConfigError(f"{where}: branches of {lineage.label}: expected {expected}, got up to {longest}")
        if other := next((label for label in labels if descends(lineage.label, label)), None):
            expected = f"a name that no branch of {other!r} may have"
            raise ConfigError(f"{where}.lineages: name: expected {expected}, got {lineage.label!r}")
    return made


def read_lineage(settings: Mapping[str, Any], where: str) -> Lineage:
    """Read the settings of one lineage.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    if "phases" in settings:
        raise ConfigError(f"{where}: unknown key 'phases', now called 'phase_budget'")
    return with_all_branches(build(Lineage, settings, where), where)
