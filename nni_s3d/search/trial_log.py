"""Sentences for the log of a trial: how many neurons are split, the predicted gain, the measured change of the loss."""

from __future__ import annotations

from nni_s3d.growth.growth_step import Decision
from nni_s3d.growth.selection.plan import GrowthPlan


def tell_decision(decision: Decision, epsilon: float) -> str:
    """Say which neurons are split next and what that promises, or why none."""
    plan = decision.plan
    if plan is None:
        return f"no plan: {decision.stop}"
    before = sum(copies.numel() for copies in plan.copies.values())
    after = sum(plan.widths.values())
    sentence = f"next: {plan.neurons} of {before} neurons are split, {before} -> {after}, to {plan.macs:,} MACs"
    if isinstance(decision.evidence, dict):
        converged = [spectrum.converged for spectrum in decision.evidence.values()]
        solved, solutions = sum(int(c.sum()) for c in converged), sum(c.numel() for c in converged)
        sentence += f"; {_promise(plan, epsilon)}; eigenpairs of {solved} of {solutions} neurons converged"
    return sentence


def tell_split(plan: GrowthPlan, epsilon: float, before: float, after: float) -> str:
    """Say what a split has done to the loss, beside what was promised.

    Args:
        plan: what was carried out.
        epsilon: length of the split.
        before: loss of the parent, on the samples that its splitting matrices were measured on.
        after: loss of the grown network on the same samples.
    """
    sentence = f"split {plan.neurons} neurons: the loss changes by {after - before:.3g}, {before:.4f} -> {after:.4f}"
    return sentence if plan.gain == 0 else f"{sentence}; {_promise(plan, epsilon)}"


def _promise(plan: GrowthPlan, epsilon: float) -> str:
    """Say by how much the loss changes to second order, epsilon^2 / 2 * gain."""
    unit = epsilon**2 / 2
    promise = f"predicted change of the loss {unit * plan.gain:.3g}"
    if plan.held_out_gain is not None:
        error = "" if plan.held_out_error is None else f" +- {unit * plan.held_out_error:.2g}"
        promise += f", held out {unit * plan.held_out_gain:.3g}{error}"
    return promise
