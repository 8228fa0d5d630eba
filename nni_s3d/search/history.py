"""The networks that a trial's network has grown from."""

from __future__ import annotations

from typing import Any

from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import parse_spec
from nni_s3d.search.store import Store
from nni_s3d.search.stored import StoredNetwork, stored_network
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.tasks.task import Task


def history(parameters: dict[str, Any], task: Task, store: Store) -> list[StoredNetwork]:
    """Return the network of a finished trial, after those of its lineage that it has grown from.

    Args:
        parameters: those of the trial.
        task: what it has trained.
        store: where it has left its artefacts.

    Raises:
        S3DError: the parameters or the store are not what they should be.
    """
    space = task.space()
    spec = parse_spec(parameters, space)
    if spec.lineage is None:
        keys = [TrialContext(task, space, store, spec, lineage=None, parent=None).key]
    else:
        outcomes = (store.read_json(outcome_path(spec.lineage, step), "key") for step in range(spec.step + 1))
        keys = [str(outcome["key"]) for outcome in outcomes if outcome is not None]
    return [network for key in keys if (network := stored_network(store, key)) is not None]
