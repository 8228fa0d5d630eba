"""The graph of one example run, before a rehearsal, and what a second run in training mode adds to it."""

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.read import read_graph, read_run
from tests import reference
from tests.cases import all_cases
from tests.wide import Net, linears, sample


@all_cases
def test_the_outputs_are_those_of_the_model_in_evaluation_mode(case):
    model, inputs = case.model(), case.inputs()
    with reference.untouched(model):
        outputs = read_run(model, inputs).outputs
    assert [torch.equal(output, model.eval()(inputs)) for output in outputs] == [True]


def test_no_rehearsal_refuses_what_no_rule_sees():
    model, inputs = Net(_divided_by_its_width, **linears((4, 3), (3, 2))).double(), sample(5, 4)
    assert read_graph(model, inputs).widths == {"a": 3}
    assert s3d.trace(model, inputs).widths == {}


def _divided_by_its_width(m: nn.Module, x: Tensor) -> Tensor:
    return m.b((h := m.a(x)) / h.shape[1])


def _with_auxiliary_head(m: nn.Module, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    hidden = m.a(x).tanh()
    return (m.b(hidden), m.c(hidden)) if m.training else m.b(hidden)


def test_what_evaluation_mode_does_not_reach_is_read_in_training_mode():
    model, inputs = Net(_with_auxiliary_head, **linears((4, 3), (3, 2), (3, 5))).double().eval(), sample(5, 4)
    graph, outputs = read_graph(model, inputs), read_run(model, inputs).outputs
    assert (graph.unreached, [str(layer) for layer in graph["a"].consumers]) == ((), ["b", "c"])
    assert [tuple(output.shape) for output in outputs] == [(5, 2)]
    assert not any(module.training for module in model.modules())
    assert s3d.count(graph) == s3d.Cost(params=15 + 8 + 20, macs=12 + 6, flops=2 * (12 + 6) + 3)


def test_what_neither_mode_reaches_is_named():
    graph = read_graph(Net(lambda m, x: m.b(m.a(x)), **linears((4, 3), (3, 2), (3, 5))).double(), sample(5, 4))
    assert graph.unreached == ("c",)


def test_layers_that_change_in_training_mode_stay_as_they_evaluate():
    layers = linears((4, 3), (3, 2), (3, 5)) | {"norm": nn.BatchNorm1d(4), "drop": nn.Dropout(1.0)}
    model = Net(lambda m, x: _with_auxiliary_head(m, m.drop(m.norm(x))), **layers).double()
    with reference.untouched(model):
        graph = read_graph(model, sample(5, 4))
    assert graph["a"].splittable
    assert graph.unreached == ()


def test_a_model_that_fails_says_so():
    with pytest.raises(s3d.ModelError, match="a fails on the example inputs: mat1 and mat2"):
        read_graph(Net(lambda m, x: m.a(x), a=nn.Linear(3, 2)), torch.zeros(5, 4))
