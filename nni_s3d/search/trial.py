"""One trial, without NNI: spec -> network -> metrics, and whatever of it is not there yet, or no longer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from nni_s3d.errors import ConfigError, DamageError, S3DError, StoreError
from nni_s3d.search.ancestors import Ancestors
from nni_s3d.search.artefacts import METRICS, check_whole, remove_leftovers
from nni_s3d.search.branches import plan_name
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path, trial_path
from nni_s3d.search.planning import record_outcome
from nni_s3d.search.read_lineages import read_lineage
from nni_s3d.search.retention import CHECKPOINT, PRUNED
from nni_s3d.search.spec import Spec, parse_spec
from nni_s3d.search.store import Store
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.search.work import plan_later, work
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import Task

_logger = logging.getLogger(__name__)


def run(
    parameters: dict[str, Any], task: Task, store: Store, report: Callable[[float], None] = lambda accuracy: None
) -> dict[str, float]:
    """Run one trial and return its metrics; a trial that was finished before returns them at once.

    What is damaged in the store, or lost, is named in the log and made again.

    Args:
        parameters: the spec that NNI or a controller hands out.
        task: what to train.
        store: where parents are found and artefacts left. A trial that was killed goes on from its checkpoint there.
        report: takes intermediate validation accuracies.

    Raises:
        S3DError: the parameters, the task or the store are not what they should be.
    """
    return _run(parameters, task, store, report, needed=False)


def _run(
    parameters: dict[str, Any], task: Task, store: Store, report: Callable[[float], None], needed: bool
) -> dict[str, float]:
    """Run one trial; `needed` says that a larger network grows from its own, which is made again if it was pruned."""
    space = task.space()
    spec = parse_spec(parameters, space)
    lineage = _lineage(store, spec)
    store.claim(task.fingerprint)
    if spec.lineage is not None:
        _check_widths(store, spec, space)
        store.write_json(trial_path(spec.lineage, spec.step), {"trial": os.environ.get("NNI_TRIAL_JOB_ID")})
    ancestors = Ancestors(store, space, lambda before: _run(before, task, store, lambda accuracy: None, needed=True))
    try:
        parent, plan = _parent_of(ancestors, spec)
        trial = TrialContext(task, space, store, spec, lineage=lineage, parent=parent, plan=plan, report=report)
        metrics = _found(trial, needed)
        if metrics is None:
            metrics = _made(trial, ancestors)
            store.remove(trial.path(PRUNED))  # if it was made because a larger network grows from it
        remove_leftovers(trial)
        record_outcome(trial, metrics)
    except Exception as error:
        if spec.lineage is not None:
            with suppress(StoreError):  # it says less than the first one, such as that the disk is full
                store.write_json(outcome_path(spec.lineage, spec.step), _told(error))
        raise
    return metrics


def _check_widths(store: Store, spec: Spec, space: Space) -> None:
    """Refuse a growth step that is none of its lineage, such as a copy with other widths from NNI's web UI."""
    expected = Spec(dict(space.low), lineage=spec.lineage).widths
    if spec.step > 0:
        before = store.read_if_whole(outcome_path(str(spec.lineage), spec.step - 1)) or {}
        if not isinstance(before.get("next"), dict):  # it is made again
            return
        expected = {name: before["next"].get(name) for name in spec.widths}
    if spec.widths != expected:
        raise ConfigError(f"parameters: expected the widths {expected} of step {spec.step}, got {spec.widths}")


def _told(error: Exception) -> dict[str, Any]:
    """Return what the controller hears of an error: what it is, and whether the same may go well another time."""
    return {"error": f"{type(error).__name__}: {error}", "again": may_go_well(error)}


def may_go_well(error: Exception) -> bool:
    """Whether a trial that has failed may go well another time: not if its settings or its data are wrong."""
    return isinstance(error, StoreError) or not isinstance(error, S3DError)


def _lineage(store: Store, spec: Spec) -> Lineage | None:
    if spec.lineage is None:
        return None
    path = settings_path(spec.lineage)
    settings = store.read_json(path)
    if settings is None:
        raise StoreError(f"{store.url}: expected the settings of lineage {spec.lineage!r}, got none")
    try:
        return read_lineage(settings, store.url_of(path))
    except ConfigError as error:
        raise StoreError(f"{error}; if an older version of nni_s3d wrote it, start with a new store") from error


def _parent_of(ancestors: Ancestors, spec: Spec) -> tuple[str | None, str]:
    """Return the key of the step before, as its outcome says, and the name of the plan there."""
    if spec.lineage is None or spec.step == 0:
        return None, plan_name()
    outcome = ancestors.outcome(spec.lineage, spec.step - 1)
    return outcome["key"], str(outcome.get("plan", plan_name()))


def _found(trial: TrialContext, needed: bool) -> dict[str, float] | None:
    """Return the metrics of a trial that was finished before, if all that it left is there."""
    try:
        metrics: dict[str, float] | None = trial.store.read_json(trial.path("metrics.json"), *METRICS)
        if metrics is None:
            return None
        lacks_plan = check_whole(trial, needed)
        return plan_later(trial, metrics) if lacks_plan else metrics
    except DamageError as damage:
        _logger.warning("%s; step %d is run again", damage, trial.spec.step)
        return None


def _made(trial: TrialContext, ancestors: Ancestors) -> dict[str, float]:
    """Do the work of a trial; if what it goes on from is damaged, from the beginning."""
    try:
        return work(trial)
    except DamageError as damage:
        _logger.warning("%s; it is made again", damage)
    trial.store.remove(trial.path(CHECKPOINT))
    if trial.spec.lineage is not None and trial.spec.step > 0:
        ancestors.restore_network(trial.spec.lineage, trial.spec.step - 1)
    return work(trial)
