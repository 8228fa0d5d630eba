"""Where copies go: the constraints of eqs. 6 and 7, the gain on the real matrices, the unit of epsilon."""

import dataclasses

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import ModelError, TopFraction, TopK
from nni_s3d.growth.graph.theta import theta_norms
from tests.cases import BY_NAME, all_cases, measured, smooth_cases
from tests.growth.selection.made_up import C, network, random_ends, spectrum_of


@pytest.mark.parametrize(("copies", "c", "triplet"), [(2, 5.0, "optimal"), (3, 1.3, "paper"), (4, 1.3, "optimal")])
@all_cases
def test_a_plan_keeps_the_constraints_for_every_neuron(case, copies, c, triplet):
    run = measured(case)
    plan = s3d.select(run.spectrum, run.graph, TopFraction(1.0), copies, c=c, triplet=triplet)
    gain = 0.0
    for name, number in plan.copies.items():
        S = run.op.dense(name)
        places = iter(zip(plan.weights[name], plan.displacements[name], strict=True))
        for i, m in enumerate(number.tolist()):
            w, delta = (torch.stack(x) for x in zip(*(next(places) for _ in range(m)), strict=True))
            assert w.sum().item() == pytest.approx(1)
            assert w.abs().sum() <= c + 1e-12
            assert (w @ delta).abs().max() < 1e-12
            assert delta.norm(dim=1).max() <= 1 + 1e-9
            gain += float(torch.einsum("j,ja,ab,jb->", w, delta, S[i], delta))
            assert m > 1 or not delta.any()
    assert plan.gain == pytest.approx(gain, rel=1e-6)
    assert plan.gain < 0


def test_a_spectrum_of_some_groups_moves_only_them():
    run = measured(BY_NAME["mlp-tanh"])
    copies = {"0": torch.full((5,), 2), "2": torch.full((4,), 2)}
    plan = s3d.plan_from_copies(run.graph, copies, {"2": run.spectrum["2"]})
    assert list(plan.displacements) == ["2"]
    assert plan.gain == pytest.approx(s3d.plan_from_copies(run.graph, {"2": copies["2"]}, run.spectrum).gain)


@smooth_cases
def test_a_relative_plan_is_carried_out_in_its_unit(case):
    run, epsilon = measured(case), 1e-3
    units = theta_norms(run.graph.splittable_groups, dict(run.model.named_parameters()))
    plan = s3d.select(run.spectrum, run.graph, TopFraction(1.0), 4, c=C, theta_norms=units)
    absolute = s3d.select(run.spectrum, run.graph, TopFraction(1.0), 4, c=C)
    assert (plan.relative, absolute.relative) == (True, False)
    assert plan.gain != pytest.approx(absolute.gain, rel=5e-3)
    (x, y), grown = case.batch(), s3d.split(run.model, run.graph, plan, epsilon).model
    losses = [case.loss_fn(model(x), y).item() for model in (run.model, grown)]
    assert losses[1] - losses[0] == pytest.approx(epsilon**2 / 2 * plan.gain, rel=2e-3)


@pytest.mark.parametrize(
    ("norms", "match"),
    [
        ({}, r"theta_norms: 0: expected shape \(2,\), got none"),
        ({"0": torch.ones(3)}, r"theta_norms: 0: expected shape \(2,\), got \(3,\)"),
    ],
)
def test_a_relative_plan_needs_the_norm_of_every_neuron(norms, match):
    graph = network(2)
    spectrum = spectrum_of(graph, [(-1.0, 1.0)] * 2)
    with pytest.raises(ModelError, match=match):
        s3d.select(spectrum, graph, TopK(1), theta_norms=norms)
    with pytest.raises(ModelError, match=match):
        s3d.plan_from_copies(graph, {"0": [2, 1]}, spectrum, theta_norms=norms)


@pytest.mark.parametrize("other", ["2", "narrow"])
def test_a_spectrum_of_another_shape_is_refused(other):
    run = measured(BY_NAME["mlp-tanh"])
    wrong = {"2": run.spectrum["2"], "narrow": spectrum_of(network(4), random_ends(4, 0))["0"]}[other]
    with pytest.raises(s3d.ModelError, match=r"0: expected eigenvectors of shape \(5, 5\), got \(4, [56]\)"):
        s3d.plan_from_copies(run.graph, {"0": [2, 1, 1, 1, 1]}, {"0": wrong})


def test_a_plan_never_moves_along_what_is_no_number():
    run = measured(BY_NAME["mlp-tanh"])
    broken = dataclasses.replace(run.spectrum["0"], v_min=run.spectrum["0"].v_min * float("nan"))
    plan = s3d.plan_from_copies(run.graph, {"0": [2, 1, 1, 1, 1]}, {"0": broken})
    with pytest.raises(s3d.ModelError, match="0: expected finite eigenvectors, got infinity or NaN"):
        s3d.split(run.model, run.graph, plan, 0.1)
