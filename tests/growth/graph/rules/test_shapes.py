import pytest
import torch
from torch import nn

from nni_s3d.growth.graph.channels import Role
from tests.cases import BY_NAME, measured
from tests.wide import check_accepted, check_refused, check_rest_grows, linears

REFUSED = {
    "channels that a tensor names": (
        lambda m, x: m.b(m.a(x)[:, torch.tensor([1, 0, 3])]),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor; pick positions and leave the channels whole",
    ),
    "channels that a list names": (
        lambda m, x: m.b(m.a(x)[:, [1, 0, 3]]),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor; pick positions and leave the channels whole",
    ),
    "channels that are selected": (
        lambda m, x: m.b(m.a(x).index_select(1, torch.tensor([1, 0, 3]))),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor; pick positions and leave the channels whole",
    ),
    "some channels at picked positions": (
        lambda m, x: m.b(m.a(x).gather(1, torch.zeros(5, 1, 3, dtype=torch.int64))),
        {"a": nn.Linear(4, 5), "b": nn.Linear(3, 2)},
        (5, 3, 4),
        "its channels are picked by an index tensor; pick positions and leave the channels whole",
    ),
    "any element": (
        lambda m, x: m.b(m.a(x).take_along_dim(torch.tensor([1, 0, 3]))).expand(5, 2),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor; pick positions and leave the channels whole",
    ),
    "a slice of an uneven part": (
        lambda m, x: m.b((h := m.a(x))[:, :2].tanh()) + m.c(h[:, 2:].tanh()),
        linears((4, 5), (2, 2), (3, 2)),
        (5, 4),
        "a: its copies are joined with other channels in the grown model|the model fails when it grows: .*",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "the last step of every sequence": (
        lambda m, x: m.b(m.a(x).tanh()[torch.arange(5), torch.tensor([1, 2, 0, 2, 1])]),
        linears((4, 3), (3, 2)),
        (5, 3, 4),
        {"a": 3},
    ),
    "positions, with channels before and behind": (
        lambda m, x: m.b(m.a(x).tanh()[..., torch.tensor([1, 0, 1])][:, :, [0, 2]]).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1)},
        (5, 2, 5),
        {"a": 3},
    ),
    "the steps of a mask": (
        lambda m, x: m.b(m.a(x).tanh()[x[..., 0] > 0]),
        linears((4, 3), (3, 2)),
        (5, 3, 4),
        {"a": 3},
    ),
    "gathered steps": (
        lambda m, x: m.b((h := m.a(x).tanh()).gather(1, torch.ones(5, 2, h.shape[2], dtype=torch.int64))),
        linears((4, 3), (3, 2)),
        (5, 3, 4),
        {"a": 3},
    ),
    "selected steps": (
        lambda m, x: m.b(m.a(x).tanh().index_select(dim=1, index=torch.tensor([2, 2, 0, 1]))),
        linears((4, 3), (3, 2)),
        (5, 3, 4),
        {"a": 3},
    ),
    "steps taken along": (
        lambda m, x: m.b(m.a(x).tanh().take_along_dim(torch.tensor([2, 0])[None, :, None], 1)),
        linears((4, 3), (3, 2)),
        (5, 3, 4),
        {"a": 3},
    ),
    "viewed as another tensor": (
        lambda m, x: m.b((h := m.a(x)) * m.c(x.mean(2)).view_as(h.mean(2)).unsqueeze(2)).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "c": nn.Linear(2, 3)},
        (5, 2, 5),
        {"a": 3},
    ),
    "reshaped and expanded as another tensor": (
        lambda m, x: m.b((h := m.a(x)) * m.c(x.mean(2)).reshape_as(h[..., :1]).expand_as(h)).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "c": nn.Linear(2, 3)},
        (5, 2, 5),
        {"a": 3},
    ),
    "broadcast to the shape of another tensor": (
        lambda m, x: m.b((h := m.a(x)) * m.c(x.mean(2)).unsqueeze(2).broadcast_to(h.shape)).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "c": nn.Linear(2, 3)},
        (5, 2, 5),
        {"a": 3},
    ),
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
