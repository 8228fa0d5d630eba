from dataclasses import replace

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.growth_step import Decision
from nni_s3d.search.trial_log import tell_decision, tell_split


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    inputs = torch.randn(5, 3)
    graph = s3d.trace(model, inputs)
    op = s3d.SplittingOperator(model, graph, [(inputs, torch.arange(5) % 2)], nn.functional.cross_entropy)
    return graph, s3d.spectrum(op)


@pytest.fixture
def plan(network):
    """Two of four neurons are split."""
    graph, _ = network
    return replace(s3d.plan_from_copies(graph, {"0": torch.tensor([2, 1, 1, 2])}), gain=-4.0)


def test_the_end_of_a_lineage_has_a_reason():
    assert tell_decision(Decision(None, "no budget is left", {}, 0.0), 0.1) == "no plan: no budget is left"


def test_a_decision_says_what_is_split_and_what_that_promises(network, plan):
    _, spectra = network
    sentence = tell_decision(Decision(plan, "", spectra, 1.0), 0.1)
    assert sentence.startswith(f"next: 2 of 4 neurons are split, 4 -> 6, to {plan.macs:,} MACs; ")
    assert "predicted change of the loss -0.02;" in sentence  # epsilon^2 / 2 * gain
    assert sentence.endswith("eigenpairs of 4 of 4 neurons converged")


def test_eigenpairs_that_did_not_converge_are_counted(network, plan):
    _, spectra = network
    spectra = {"0": replace(spectra["0"], converged=torch.tensor([True, False, False, True]))}
    assert tell_decision(Decision(plan, "", spectra, 1.0), 0.1).endswith("eigenpairs of 2 of 4 neurons converged")


def test_growth_without_eigenpairs_promises_nothing(plan):
    sentence = tell_decision(Decision(plan, "", None, 0.0), 0.1)
    assert sentence == f"next: 2 of 4 neurons are split, 4 -> 6, to {plan.macs:,} MACs"


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({}, "; predicted change of the loss -0.02"),
        ({"held_out_gain": -1.0}, "; predicted change of the loss -0.02, held out -0.005"),
        (
            {"held_out_gain": -1.0, "held_out_error": 0.2},
            "; predicted change of the loss -0.02, held out -0.005 +- 0.001",
        ),
        ({"gain": 0.0}, ""),
    ],
)
def test_a_split_says_what_it_has_done_beside_what_was_promised(plan, changes, promise):
    sentence = tell_split(replace(plan, **changes), 0.1, before=1.5, after=1.25)
    assert sentence == f"split 2 neurons: the loss changes by -0.25, 1.5000 -> 1.2500{promise}"
