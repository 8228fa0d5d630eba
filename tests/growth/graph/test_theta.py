import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Axis, Role
from nni_s3d.growth.graph.theta import as_columns, carried, dimension, pack, scatter, sums_of_slots, theta_norms
from tests import reference
from tests.cases import all_cases, measured
from tests.wide import WIDE, Net


@all_cases
def test_theta_holds_the_weights_of_all_producers_and_then_their_biases(case):
    run = measured(case)
    parameters = dict(run.model.named_parameters())
    for group in run.graph.splittable_groups:
        if any("transpose" in layer.kind for layer in group.producers):
            continue
        expected = reference.theta(run.model, group)
        assert torch.equal(pack(group, parameters), expected)
        assert dimension(group, run.graph.shapes) == expected.shape[1]
        torch.testing.assert_close(theta_norms([group], parameters)[group.name], expected.norm(dim=1))


@pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)
def test_scatter_is_the_inverse_of_pack(case):
    run = measured(case)
    parameters = dict(run.model.named_parameters())
    into: dict[str, torch.Tensor] = {}
    for group in run.graph.splittable_groups:
        vectors = pack(group, parameters)
        assert vectors.shape == (group.width, dimension(group, run.graph.shapes))
        scatter(group, vectors, into, run.graph.shapes)
        assert torch.equal(pack(group, into), vectors)
    for name, tensor in into.items():
        written = tensor != 0
        assert torch.equal(tensor[written], parameters[name][written])


def test_what_carries_the_weights_of_copies_is_read_as_columns_are():
    def forward(m, x):
        query, key = m.both(x).chunk(2, -1)
        return m.read((query @ key.mT).softmax(-1))

    model = Net(forward, both=nn.Linear(4, 6), read=nn.Linear(3, 2)).double()
    graph = s3d.trace(model, torch.randn(5, 3, 4, dtype=torch.float64))
    group, (layer, reader) = graph["both"], graph.layers
    slots = [as_columns(axis).slots.tolist() for axis in layer.axes if axis.role is Role.ROW]
    assert slots == [[-1, -1, -1, 0, 1, 2]] * 2
    assert [as_columns(axis) for axis in reader.axes if axis.role is Role.ROW] == [None, None]
    flags = torch.cat([torch.zeros(4), torch.ones(4), torch.zeros(1), torch.ones(1)]).bool()  # keys come second
    assert torch.equal(carried(group, graph.shapes), flags.expand(3, 10))
    assert not carried(graph["read"], graph.shapes).any()


def test_a_neuron_of_several_rows_has_them_all():
    model = Net(lambda m, x: m.b(m.a(x).unflatten(1, (2, 3)).sum(1)), a=torch.nn.Linear(4, 6), b=torch.nn.Linear(3, 2))
    graph = s3d.trace(model, torch.randn(2, 4))
    assert not graph["a"].splittable
    tied = Net(lambda m, x: m.b((h := m.a(x))[:, :3] + h[:, 3:]), a=torch.nn.Linear(4, 6), b=torch.nn.Linear(3, 2))
    group = s3d.trace(tied, torch.randn(2, 4))["a"]
    assert group.width == 3
    assert group.rows(group.producers[0]).tolist() == [[0, 3], [1, 4], [2, 5]]
    theta = pack(group, dict(tied.named_parameters()))
    assert torch.equal(theta[1], torch.cat([tied.a.weight[1], tied.a.weight[4], tied.a.bias[[1, 4]]]))


def test_the_rows_of_a_transposed_convolution_in_blocks():
    conv = torch.nn.ConvTranspose1d(6, 4, 3, groups=2)
    read = torch.nn.Conv1d(4, 2, 1)
    graph = s3d.trace(torch.nn.Sequential(conv, torch.nn.Tanh(), read), torch.randn(2, 6, 5))
    parameters = {"0.weight": conv.weight, "0.bias": conv.bias}
    theta = pack(graph["0"], parameters)
    assert dimension(graph["0"], graph.shapes) == theta.shape[1] == 3 * 3 + 1
    for row in range(4):  # of block row // 2, which reads three of the channels
        weight = conv.weight[3 * (row // 2) : 3 * (row // 2) + 3, row % 2]
        assert torch.equal(theta[row], torch.cat([weight.flatten(), conv.bias[row : row + 1]]))
    into: dict[str, torch.Tensor] = {}
    scatter(graph["0"], theta, into, graph.shapes)
    assert torch.equal(into["0.weight"], conv.weight)


def test_sums_over_what_lies_at_every_slot():
    axis = Axis("w", 1, Role.COLUMN, torch.arange(3))
    tensor = torch.arange(24.0).reshape(2, 3, 4)
    torch.testing.assert_close(sums_of_slots(tensor, axis), tensor.double().sum((0, 2)))
    grouped = Axis("w", 1, Role.COLUMN, torch.arange(6), blocks=2)
    expected = torch.cat([tensor[:1].sum((0, 2)), tensor[1:].sum((0, 2))]).double()
    torch.testing.assert_close(sums_of_slots(tensor, grouped), expected)
    torch.testing.assert_close(
        sums_of_slots(tensor[0, :, 0], Axis("b", 0, Role.COLUMN, torch.arange(3))), tensor[0, :, 0].double()
    )
