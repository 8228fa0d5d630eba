import doctest

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests import reference
from tests.cases import BY_NAME, all_cases, measured
from tests.wide import WIDE

WIDE_CASES = {case.name: case for case in WIDE}


@all_cases
def test_l1_is_the_sum_over_the_rows_of_all_producers(case):
    run = measured(case)
    found = s3d.importance(run.model, run.graph, "l1")
    assert found.keys() == run.graph.widths.keys()
    for name, scores in found.items():
        torch.testing.assert_close(scores, reference.theta(run.model, run.graph[name]).abs().sum(1).detach())


def test_scales_of_batch_norms():
    case = BY_NAME["separable-silu"]
    model = case.model()
    model[1].weight.data[0] = -2.0
    found = s3d.importance(model, measured(case).graph, "batch_norm")
    two_filters = model[10].weight.reshape(4, 2)  # of a depthwise convolution with two filters for each channel
    expected = {
        "0": (model[1].weight.abs() + model[4].weight.abs()) / 2,
        "6": (model[7].weight.abs() + two_filters.abs().sum(1)) / 3,
    }
    assert found.keys() == expected.keys()  # the last group has no batch norm, and keeps all
    for name, scores in found.items():
        torch.testing.assert_close(scores, expected[name].detach())


def test_scales_of_batch_norms_over_concatenations():
    run = measured(WIDE_CASES["dense"])
    found = s3d.importance(run.model, run.graph, "batch_norm")
    norms = run.model.norms
    assert found.keys() == {"stem", "convs.0", "convs.1"}
    torch.testing.assert_close(found["stem"], sum(norm.weight[:3].abs() for norm in norms).detach() / 3)
    torch.testing.assert_close(found["convs.0"], (norms[1].weight[3:] + norms[2].weight[3:5]).abs().detach() / 2)
    torch.testing.assert_close(found["convs.1"], norms[2].weight[5:].abs().detach())


def test_the_model_is_left_as_it_is():
    case = BY_NAME["conv-bn-relu"]
    model = case.model().train()
    with reference.untouched(model):
        for kind in ("taylor", "l1", "batch_norm"):
            s3d.importance(model, measured(case).graph, kind, [case.batch()], case.loss_fn)


WRONG = [
    ({"kind": "l2"}, s3d.ConfigError, "kind: expected one of taylor, l1, batch_norm, got 'l2'"),
    ({"kind": "batch_norm"}, s3d.ModelError, "importance: expected batch norms behind some neurons, got none"),
    ({"batches": [()]}, s3d.ConfigError, "loss_fn: expected one for the importance 'taylor', got none"),
    ({"loss_fn": F.cross_entropy}, s3d.ConfigError, "batches: expected at least one for the importance 'taylor', got"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_what_cannot_be_scored_is_refused(arguments, error, message):
    run = measured(BY_NAME["mlp-tanh"])
    with pytest.raises(error, match=message):
        s3d.importance(run.model, run.graph, **arguments)


def test_a_model_of_other_widths_is_refused():
    with pytest.raises(s3d.ModelError, match=r"expected a parameter of shape .*; trace the model again"):
        s3d.importance(nn.Linear(2, 2), measured(BY_NAME["mlp-tanh"]).graph, "l1")


def test_the_examples_of_the_docstring():
    (examples,) = doctest.DocTestFinder().find(s3d.importance, globs={})
    assert not doctest.DocTestRunner().run(examples).failed
