"""The network of a trial before its parametric phase: fresh, or split from its parent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nni_s3d.errors import DamageError, ModelError, StoreError, first_line
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import count
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.surgery.shrink_and_perturb import shrink_and_perturb
from nni_s3d.growth.surgery.split import split
from nni_s3d.growth.trace import trace
from nni_s3d.search.notes import SplitNote, write_split
from nni_s3d.search.spec import parse_spec
from nni_s3d.search.tensor_files import read_checkpoint, read_tensors
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.search.trial_log import tell_split
from nni_s3d.tasks.data import DataSet
from nni_s3d.tasks.optimizers import make_optimizer
from nni_s3d.tasks.training import evaluate

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A network that is about to be trained."""

    model: nn.Module
    graph: ChannelGraph | None  # None for a fresh network, which has not been traced
    macs: int  # spent on measuring how the split has changed the loss
    optimizer_state: dict[str, Any] | None = None  # that goes on from the parent's; None for an optimizer of its own


def first_weights(trial: TrialContext, data: DataSet) -> Start:
    """Return the network of a trial with its first weights.

    Raises:
        DamageError: the parent's artefacts are missing or damaged.
        StoreError: they are those of another network.
    """
    if trial.parent is None or trial.lineage is None:
        return Start(trial.task.build_model(trial.spec.widths, trial.seed, data.shape), None, 0)
    parent = _parent(trial, trial.parent, data)
    plan, epsilon = parent.plan, trial.lineage.epsilon
    graph = trace(parent.model, trial.task.example(data.shape))
    graph = graph.refuse_others(plan.copies, "the trial of the parent has refused it")
    result = split(parent.model, graph, plan, epsilon, parent.optimizer)
    widths = {name: result.widths.get(name) for name in trial.spec.widths}
    if widths != trial.spec.widths:
        expected = f"the plan of {trial.parent} to give widths {trial.spec.widths}"
        raise StoreError(f"{trial.store.url}: expected {expected}, got {widths}")
    samples = trial.task.curvature_loader(data, trial.seed)
    before, after = (evaluate(model, samples).loss for model in (parent.model, result.model))
    _logger.info("%s", tell_split(plan, epsilon, before, after))
    write_split(trial.store, trial.key, SplitNote.of(plan, epsilon, before, after))
    shrink_and_perturb(result.model, trial.lineage.shrink, trial.lineage.perturb, trial.seed_of_step)
    macs = (count(graph).macs + count(result.graph).macs) * len(samples.images)
    return Start(result.model, result.graph, macs, result.optimizer_state)


@dataclass(frozen=True)
class _Parent:
    """A network that grows, and how; with its optimizer, if that goes on."""

    model: nn.Module
    plan: GrowthPlan
    optimizer: Optimizer | None


def _parent(trial: TrialContext, key: str, data: DataSet) -> _Parent:
    """Return the network of a trial, with what it has left of how it grows."""
    store, goes_on = trial.store, trial.grows_before_decay
    parameters = store.read_json(f"{key}/spec.json")
    weights = read_tensors(store, f"{key}/{trial.grown_weights}")
    plan = f"{key}/{trial.plan}"
    content, tensors = store.read_json(f"{plan}.json"), read_tensors(store, f"{plan}.safetensors")
    state = read_checkpoint(store, f"{key}/optimizer.pt") if goes_on else {}
    if parameters is None or weights is None or content is None or tensors is None or state is None:
        raise DamageError(f"{store.url_of(key)}: expected the weights and the plan of a network that grows, got none")
    widths = parse_spec(parameters, trial.space, store.url_of(f"{key}/spec.json")).widths
    model = trial.task.build_model(widths, trial.seed, data.shape)
    optimizer = make_optimizer(model, trial.task.training) if goes_on else None
    try:
        model.load_state_dict(weights)
        if optimizer is not None:
            optimizer.load_state_dict(state)
        return _Parent(model, GrowthPlan.load(content, tensors), optimizer)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ModelError) as error:
        # Files that are whole, of another version.
        expected = f"expected the weights and the plan of a network with widths {widths}"
        raise StoreError(f"{store.url_of(key)}: {expected}, got: {first_line(error)}") from error
