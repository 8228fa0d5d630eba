"""What a trial leaves for the step after it: a plan for every way to grow, and the outcome for the controller."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from nni_s3d.errors import ConfigError, DamageError
from nni_s3d.growth.eigen.solve import spectrum
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import Cost
from nni_s3d.growth.growth_step import decide
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.selection.policies import budget_of
from nni_s3d.growth.selection.settings import Knapsack
from nni_s3d.search.branches import branch_label, plan_name, ways_of
from nni_s3d.search.lineage import ALL_STEPS_ARE_DONE, Lineage, outcome_path
from nni_s3d.search.notes import write_spectra
from nni_s3d.search.spec import Spec
from nni_s3d.search.tensor_files import write_tensors
from nni_s3d.search.trial_context import TrialContext
from nni_s3d.search.trial_log import tell_decision
from nni_s3d.tasks.data import DataSet
from nni_s3d.tasks.shared_products import splitting_operator

_logger = logging.getLogger(__name__)


def plan_next_step(trial: TrialContext, model: nn.Module, graph: ChannelGraph, cost: Cost, data: DataSet) -> int:
    """Leave a plan of the next growth step for every way, or why there is none, and return the MACs that they took.

    All ways to grow rest on one spectrum of the network.
    """
    assert trial.lineage is not None
    if not trial.plans_ahead:
        _write_plan(trial, "", None, ALL_STEPS_ARE_DONE)
        return 0
    graph = graph.refuse_others(trial.space.high, "the search space does not name it")  # and a fraction is of the rest
    model.eval()
    evidence, macs = None, 0
    for way, lineage in _ways(trial.lineage).items():
        if spent := _budget_is_spent(lineage, trial.spec.step, graph):
            _logger.info("%sno plan: %s", f"way {way}: " if way else "", spent)
            _write_plan(trial, way, None, spent)
            continue
        if lineage.method == "split" and evidence is None:
            evidence, macs = _measure(trial, lineage, model, graph, cost, data)
        decision = decide(
            model,
            graph,
            lineage.at(trial.spec.step),
            max_widths=trial.space.high,
            seed=trial.seed_of_step,
            evidence=evidence if lineage.method == "split" else None,
        )
        _logger.info("%s%s", f"way {way}: " if way else "", tell_decision(decision, lineage.epsilon))
        _write_plan(trial, way, decision.plan, decision.stop)
    return macs


def _measure(
    trial: TrialContext, lineage: Lineage, model: nn.Module, graph: ChannelGraph, cost: Cost, data: DataSet
) -> tuple[dict[str, Spectrum], int]:
    """Return the spectrum of a network, which is noted, too, and the MACs that it took."""
    task, widths = trial.task, trial.spec.widths
    with splitting_operator(task, data, model, graph, widths, lineage.smoothing, trial.seed) as op:
        found = spectrum(op, lineage.solver)
        macs = round(cost.macs * op.samples * op.passes)
    write_spectra(trial.store, trial.key, found)
    return found, macs


def record_outcome(trial: TrialContext, metrics: Mapping[str, float]) -> None:
    """Tell the controller how good this network is, and what may come next."""
    spec, lineage = trial.spec, trial.lineage
    if spec.lineage is None or lineage is None:
        return
    if trial.plans_ahead:
        stop = read_plan(trial).get("stop", "")
        outcome = {"key": trial.key, "next": _following(trial, "", spec.lineage), "stop": stop}
    else:
        outcome = {"key": trial.key, "next": None, "stop": ALL_STEPS_ARE_DONE}
    outcome |= {name: metrics[name] for name in ("default", "params", "macs")}
    if lineage.branches is not None:
        ways = ways_of(lineage) if trial.plans_ahead else ()
        branches = {way: _following(trial, way, branch_label(spec.lineage, spec.step + 1, way)) for way in ways}
        outcome["branches"] = {way: parameters for way, parameters in branches.items() if parameters is not None}
    trial.store.write_json(outcome_path(spec.lineage, spec.step), outcome)


def _ways(lineage: Lineage) -> dict[str, Lineage]:
    """Return all ways in which a network of a lineage may grow, its own first."""
    return {"": lineage, **ways_of(lineage)}


def _budget_is_spent(lineage: Lineage, step: int, graph: ChannelGraph) -> str:
    """Say so if a network costs more than the budget of a way, since it has grown in others."""
    policy = lineage.at(step).policy
    try:
        if lineage.branches is not None and isinstance(policy, Knapsack):
            budget_of(policy, graph)
    except ConfigError as error:
        return str(error)
    return ""


def _write_plan(trial: TrialContext, way: str, plan: GrowthPlan | None, stop: str) -> None:
    """Write a plan, its tensors first; or why a network does not grow in this way."""
    name = trial.path(plan_name(way))
    if plan is None:
        trial.store.write_json(f"{name}.json", {"stop": stop})
        return
    write_tensors(trial.store, f"{name}.safetensors", plan.to_tensors())
    trial.store.write_json(f"{name}.json", plan.to_json())


def read_plan(trial: TrialContext, way: str = "") -> dict[str, Any]:
    """Return the plan of the next growth step without its tensors, or {"stop": why there is none}.

    Raises:
        DamageError: neither is there.
    """
    path = trial.path(f"{plan_name(way)}.json")
    plan = trial.store.read_json(path)
    if plan is None or not ("stop" in plan or plan.keys() >= {"widths", "params", "macs"}):
        raise DamageError(f"{trial.store.url_of(path)}: expected the plan of the next growth step, got {plan!s:.80}")
    return plan


def _following(trial: TrialContext, way: str, label: str) -> dict[str, Any] | None:
    """Return the parameters of the trial that carries out a plan, or None if there is no plan."""
    plan = read_plan(trial, way)
    if "stop" in plan:
        return None
    # The plan's widths are those of layers that the search space does not name, too.
    widths = {name: width for name, width in plan["widths"].items() if name in trial.spec.widths}
    return Spec(widths, trial.spec.step + 1, label, plan["params"], plan["macs"]).to_parameters()
