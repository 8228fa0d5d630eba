"""Which files of a store may go: the weights of networks that nobody keeps, and what killed programs have left.

A network whose weights are gone keeps its numbers, its widths and its plan in words. If it is needed after all, its
trial makes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nni_s3d.search.contest import Contest
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path
from nni_s3d.search.read_lineages import read_lineage
from nni_s3d.search.store import Store
from nni_s3d.search.track import outcome_steps

PRUNED = "pruned.json"  # is there when the tensors of a network have been removed on purpose
_TENSORS = (".safetensors", ".pt")
CHECKPOINT = "checkpoint.pt"  # of a trial that has not finished
_WHOLE = "metrics.json"  # the last file that a trial writes
_BEING_WRITTEN = 3600.0  # seconds for which a temporary file may be somebody's work


def remove_tensors(store: Store, key: str) -> int:
    """Remove the weights and all other tensors of a finished network, and return how many files they were."""
    tensors = [name for name in store.files(key) if name.endswith(_TENSORS)] if store.exists(key) else []
    if tensors:
        store.write_json(f"{key}/{PRUNED}", {"removed": tensors})  # first, so that nobody takes them for lost
    for name in tensors:
        store.remove(f"{key}/{name}")
    return len(tensors)


def prune(store: Store, keep: str, cost: str = "macs") -> int:
    """Remove all files that nothing needs, and return how many they were.

    Args:
        store: of experiments that have ended, or run.
        keep: "all" networks, the "newest" of each lineage, or those and the "front" of accuracy against cost.
        cost: "macs" or "params".

    Raises:
        S3DError: the store cannot be read, or the settings of a lineage are not what they should be.
    """
    lineages = {label: replace(lineage, keep=keep) for label, lineage in _lineages(store).items()}
    if keep == "front":
        lineages = {label: replace(lineage, front=cost) for label, lineage in lineages.items()}
    removed = sum(remove_tensors(store, key) for key in _contest(store, lineages).leave(lineages))
    return removed + _remove_leftovers(store)


def _lineages(store: Store) -> dict[str, Lineage]:
    """Return the lineages of a store by their labels."""
    found = {}
    for label in store.folders("lineages") if "lineages" in store.folders() else ():
        settings = store.read_json(settings_path(label)) or {}
        found[label] = read_lineage(settings, store.url_of(settings_path(label)))
    return found


def _contest(store: Store, lineages: Mapping[str, Lineage]) -> Contest:
    contest = Contest()
    for label in lineages:
        for step in outcome_steps(store, label):
            outcome = store.read_json(outcome_path(label, step)) or {}
            if "key" in outcome:
                contest.enter(label, step, outcome)
    return contest


def _remove_leftovers(store: Store) -> int:
    """Remove checkpoints of finished trials, and old temporary files."""
    folders = ["", *store.folders()]
    if "lineages" in folders:
        folders += [f"lineages/{label}" for label in store.folders("lineages")]
    removed = sum(store.remove_temporary(folder, _BEING_WRITTEN) for folder in folders)
    for folder in filter(None, folders):
        if {_WHOLE, CHECKPOINT} <= {*store.files(folder)}:
            store.remove(f"{folder}/{CHECKPOINT}")
            removed += 1
    return removed
