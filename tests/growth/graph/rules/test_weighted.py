import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_s3d.growth.graph.rules.weighted import Weighted
from tests.wide import Fixed, Number, check_refused, check_rest_grows, linears

REFUSED = {
    "rows that a view makes one channel": (
        lambda m, x: m.b(m.a(x).tanh().view(5, -1, 4)).mean(2),
        {"a": nn.Linear(4, 12), "b": nn.Conv1d(3, 2, 2)},
        (5, 4),
        "b.weight reads several of its channels as one",
    ),
    "a part of a larger weight": (
        lambda m, x: m.b(F.linear(m.a(x).tanh(), m.experts[1])),
        linears((4, 3), (3, 2)) | {"experts": Number(2, 3, 3)},
        (5, 4),
        "a single one of the 2 blocks of experts has run",
    ),
    "several rows of a larger weight": (
        lambda m, x: m.b(F.linear(m.a(x).tanh(), m.rows[1:4])),
        linears((4, 3), (3, 2)) | {"rows": Number(5, 3)},
        (5, 4),
        "its channels enter a linear whose weight is not a parameter of the model",
    ),
    "a transform with fixed filters": (
        lambda m, x: m.b(m.a(x) + F.conv1d(x, m.dct)).mean(2),
        {"a": nn.Conv1d(4, 3, 1), "b": nn.Conv1d(3, 2, 1), "dct": Fixed(3, 4, 1)},
        (5, 4, 4),
        "the weight or bias of its conv1d is a buffer, not a parameter",
    ),
    "a weight that is computed": (
        lambda m, x: m.b(F.linear(m.a(x).tanh(), m.c.weight.tanh())),
        linears((4, 3), (3, 2), (3, 3)),
        (5, 4),
        "it is read by a weight that is computed from c.weight so that no column can be multiplied alone",
    ),
    "a sum with a layer whose weight is computed": (
        lambda m, x: m.b(m.a(x) + F.linear(x, m.c.weight / m.c.weight.norm())),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        "the weight of its linear is computed so that its rows depend on each other",
    ),
    "a sum with a layer whose bias is a buffer": (
        lambda m, x: m.b(m.a(x) + F.linear(x, m.c.weight, m.norm.running_var)),
        linears((4, 3), (3, 2), (4, 3)) | {"norm": nn.BatchNorm1d(3)},
        (5, 4),
        "the weight or bias of its linear is a buffer, not a parameter",
    ),
    "one channel read along another dimension": (
        lambda m, x: m.b(m.a(x)).sum(1),
        {"a": nn.Conv1d(2, 1, 2), "b": nn.Linear(5, 2)},
        (5, 2, 6),
        "b.weight reads it along another dimension than its channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


@pytest.mark.parametrize("groups, depthwise", [(1, False), (3, False), (6, True)])
def test_a_depthwise_convolution_has_as_many_groups_as_channels(groups, depthwise):
    x = torch.rand(2, 6, 4)
    assert Weighted("conv1d", x, torch.rand(6, 6 // groups, 1), None, x, 1, groups=groups).is_depthwise is depthwise
