import pytest
import torch
from torch import nn

from nni_s3d.growth.graph.channels import Role
from tests.cases import BY_NAME, measured
from tests.wide import check_accepted, check_refused, check_rest_grows, linears

REFUSED = {
    "a slice of an uneven part": (
        lambda m, x: m.b((h := m.a(x))[:, :2].tanh()) + m.c(h[:, 2:].tanh()),
        linears((4, 5), (2, 2), (3, 2)),
        (5, 4),
        r"the model computes something else when it grows: getitem in .* is given the bounds \[:, :2\] as numbers; .*",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "one channel at several positions, added to a layer": (
        lambda m, x: m.b((m.a(x).flatten(1) + m.c(x.flatten(1))).tanh()),
        {"a": nn.Conv1d(2, 1, 2), "b": nn.Linear(4, 2), "c": nn.Linear(10, 4)},
        (5, 2, 5),
        {"a": 1},
    ),
    "two channels at several positions, added to a layer": (
        lambda m, x: m.b((m.a(x).view(5, -1) + m.c(x.reshape(5, -1))).tanh()),
        {"a": nn.Conv1d(2, 2, 2), "b": nn.Linear(8, 2), "c": nn.Linear(10, 8)},
        (5, 2, 5),
        {"a": 2},
    ),
    "dimensions that come and go in place": (
        lambda m, x: m.b((m.a(x) * torch.sigmoid(m.c(x.mean(2))).unsqueeze_(2)).mean(2)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(3, 2), "c": nn.Linear(2, 3)},
        (5, 2, 5),
        {"a": 3},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    check_accepted(*ACCEPTED[name], copies)


def test_axes_of_a_flattened_convolution():
    graph = measured(BY_NAME["pool-flatten-gelu"]).graph
    (columns,) = (a for a in graph["0"].consumers[0].axes if a.role is Role.COLUMN)
    assert columns.tensor == "4.weight"
    assert columns.dim == 1
    assert columns.slots.tolist() == [0] * 4 + [1] * 4 + [2] * 4
