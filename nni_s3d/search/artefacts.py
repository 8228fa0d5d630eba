"""What a trial leaves in the store: which of it later trials need, and which of it nobody does."""

from __future__ import annotations

from collections.abc import Iterator

from nni_s3d.errors import DamageError
from nni_s3d.search.branches import plan_name, ways_of
from nni_s3d.search.lineage import ALL_STEPS_ARE_DONE, Lineage
from nni_s3d.search.planning import read_plan
from nni_s3d.search.retention import CHECKPOINT, PRUNED
from nni_s3d.search.trial_context import TrialContext

METRICS = ("default", "test_accuracy", "params", "macs")  # what every reader of a trial's metrics counts on


def check_whole(trial: TrialContext, needed: bool) -> bool:
    """Make sure that all that a finished trial has left is there, and whole.

    Args:
        trial: one whose metrics are there.
        needed: whether its network may not have been pruned.

    Returns:
        Whether nothing but the plan of the next growth step is missing, as when a lineage was given more steps.

    Raises:
        DamageError: something is missing or damaged.
    """
    store = trial.store
    pruned = not needed and store.exists(trial.path(PRUNED))
    for name in ("spec.json", *(() if pruned else _tensors(trial))):
        if store.read_bytes(trial.path(name)) is None:
            raise DamageError(f"{store.url_of(trial.path(name))}: expected what a finished trial leaves, got nothing")
    return trial.lineage is not None and _lacks_plan(trial, trial.lineage, pruned)


def _lacks_plan(trial: TrialContext, lineage: Lineage, pruned: bool) -> bool:
    if trial.plans_ahead and read_plan(trial).get("stop") == ALL_STEPS_ARE_DONE:
        return True
    for way in ["", *ways_of(lineage)] if trial.plans_ahead else [""]:
        plan, tensors = read_plan(trial, way), trial.path(f"{plan_name(way)}.safetensors")
        if "stop" not in plan and not pruned and trial.store.read_bytes(tensors) is None:
            raise DamageError(f"{trial.store.url_of(tensors)}: expected the plan of the next growth step, got nothing")
    return False


def remove_leftovers(trial: TrialContext) -> None:
    """Remove what a finished trial needs no longer, and what one that was killed may have left."""
    trial.store.remove(trial.path(CHECKPOINT))
    trial.store.remove_temporary(trial.key)


def _tensors(trial: TrialContext) -> Iterator[str]:
    yield "weights.safetensors"
    if trial.grows_before_decay:
        yield from (trial.grown_weights, "optimizer.pt")
