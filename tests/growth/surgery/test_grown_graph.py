import copy

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.grown_graph import is_as_expected, read_grown_graph, read_grown_run
from nni_s3d.growth.surgery.install import install
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place
from tests import reference
from tests.cases import measured
from tests.wide import WIDE, Net, linears, random_case


def network(width: int, *more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), *more, nn.Linear(width, 2))


X = torch.randn(5, 4)


def test_the_graph_and_the_outputs_of_a_grown_network():
    grown = network(5)
    graph, outputs = read_grown_graph(grown, X, read_graph(network(3), X), torch.tensor([3, 1, 1, 1, 1]))
    assert graph.widths == {"0": 5}
    assert torch.equal(outputs[0], grown(X))


def test_reasons_of_the_parent_are_kept():
    parent = read_graph(network(3), X).refuse_others((), "it is left alone")
    graph, _ = read_grown_graph(network(3), X, parent, torch.ones(5, dtype=torch.int64))
    assert graph["0"].reason == "it is left alone"


@pytest.mark.parametrize(
    ("grown", "message"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(3, 2)), "the model fails when it grows: mat1"),
        (network(4), "0: its copies are joined with other channels in the grown model"),
        (network(5, nn.BatchNorm1d(5)).eval(), "expected the grown network to call the layers of the trace"),
        (
            network(5, nn.Softmax(-1)),
            "0: expected a group that can still be split when it has grown, but softmax mixes its channels",
        ),
    ],
    ids=["fails", "widths", "layers", "splittable"],
)
def test_other_networks_are_refused(grown, message):
    parent = network(3, nn.Identity()) if len(grown) == 4 else network(3)
    with pytest.raises(s3d.ModelError, match=message):
        read_grown_graph(grown, X, read_graph(parent, X), torch.tensor([3, 1, 1, 1, 1]))


def grown_in_place(model: nn.Module, graph: s3d.ChannelGraph, copies: Tensor) -> tuple[nn.Module, list[Tensor]]:
    """Return a copy of a model whose channels have these copies, and the slots where they are put."""
    grown, ones = copy.deepcopy(model), torch.ones(int(copies.sum()), dtype=torch.float64)
    growth = AxisGrowth(graph, NewChannels(copies, ones, ones), slots_in_place(graph, copies))
    with torch.no_grad():
        values = growth.values(dict((*model.named_parameters(), *model.named_buffers())))
        install(grown, values, graph.layers, growth.attributes)
    return grown, growth.slots


@pytest.mark.parametrize("case", [*WIDE, *map(random_case, range(40))], ids=lambda case: case.name)
def test_what_is_expected_is_what_the_graph_would_say(case):
    run, inputs = measured(case), case.inputs()
    copies = run.graph.per_channel(with_equal_parts(run.graph, reference.plan_of_random_copies(run.graph, (1, 2), 1)))
    grown, slots = grown_in_place(run.model, run.graph, copies)
    notes = read_grown_run(grown, inputs, run.graph).notes
    graph, _ = read_grown_graph(grown, inputs, run.graph, copies)
    same = all(torch.equal(axis.slots, wanted) for axis, wanted in zip(graph.axes(), slots, strict=True))
    assert is_as_expected(notes, run.graph, copies, slots) == same


@pytest.mark.parametrize(
    "grown",
    [network(4), network(5, nn.BatchNorm1d(5)).eval(), network(5, nn.Softmax(-1))],
    ids=["widths", "layers", "splittable"],
)
def test_other_networks_are_not_as_expected(grown):
    more = [nn.Identity()] * (len(grown) - 3)
    graph, copies = read_graph(network(3, *more), X), torch.tensor([2, 1, 2, 1, 1])
    slots = slots_in_place(graph, copies)
    assert is_as_expected(read_grown_run(network(5, *more), X, graph).notes, graph, copies, slots)
    assert not is_as_expected(read_grown_run(grown, X, graph).notes, graph, copies, slots)


def test_channels_that_meet_other_ones_are_not_as_expected():
    parent = Net(lambda m, x: m.b(m.a(x).tanh() + m.c(x)), **linears((4, 3), (3, 2), (4, 3)))
    apart = Net(lambda m, x: m.b((h := m.c(x)) * 0 + h.detach()) + 0 * m.a(x).sum(), **linears((4, 3), (3, 2), (4, 3)))
    graph, copies = read_graph(parent, X), torch.ones(5, dtype=torch.int64)
    slots = slots_in_place(graph, copies)
    assert is_as_expected(read_grown_run(parent, X, graph).notes, graph, copies, slots)
    assert not is_as_expected(read_grown_run(apart, X, graph).notes, graph, copies, slots)
