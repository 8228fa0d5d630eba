import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.surgery.grown_graph import read_grown_graph


def network(width: int, *more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), *more, nn.Linear(width, 2))


X = torch.randn(5, 4)


def test_the_graph_and_the_outputs_of_a_grown_network():
    grown = network(5)
    graph, outputs = read_grown_graph(grown, X, read_graph(network(3), X), {"0": 5})
    assert graph.widths == {"0": 5}
    assert torch.equal(outputs[0], grown(X))


def test_reasons_of_the_parent_are_kept():
    parent = read_graph(network(3), X).refuse_others((), "it is left alone")
    graph, _ = read_grown_graph(network(3), X, parent, {})
    assert graph["0"].reason == "it is left alone"


@pytest.mark.parametrize(
    ("grown", "widths", "message"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(3, 2)), {"0": 5}, "the model fails when it grows: mat1"),
        (network(4), {"0": 5}, "0: its copies are joined with other channels in the grown model"),
        (network(5, nn.BatchNorm1d(5)).eval(), {"0": 5}, "expected the grown network to call the layers of the trace"),
        (
            network(5, nn.Softmax(-1)),
            {"0": 5},
            "0: expected a group that can still be split when it has grown, but softmax mixes its channels",
        ),
    ],
    ids=["fails", "widths", "layers", "splittable"],
)
def test_other_networks_are_refused(grown, widths, message):
    parent = network(3, nn.Identity()) if len(grown) == 4 else network(3)
    with pytest.raises(s3d.ModelError, match=message):
        read_grown_graph(grown, X, read_graph(parent, X), widths)
