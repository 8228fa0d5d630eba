import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_s3d.growth.graph.channels import Role
from tests.cases import BY_NAME, measured
from tests.wide import Blur, Fixed, Number, check_accepted, check_refused, check_rest_grows, linears

REFUSED = {
    "a sum with rows of a table that is rescaled in place": (
        lambda m, x: m.b(m.a(x) + m.table(torch.tensor([0, 1, 1, 0, 2]))),
        linears((4, 3), (3, 2)) | {"table": nn.Embedding(3, 3, max_norm=1.0)},
        (5, 4),
        "the table of its embedding is computed, a buffer, or changed by max_norm",
    ),
    "a filter that is made on the fly": (
        lambda m, x: m.b(F.conv1d(m.a(x), torch.eye(6, 2, dtype=x.dtype)[1::2, None], groups=3)).mean(2),
        {"a": nn.Conv1d(4, 3, 1), "b": nn.Conv1d(3, 2, 1)},
        (5, 4, 4),
        "its channels enter a conv1d whose filters are no tensors of the model",
    ),
    "a slope that is computed": (
        lambda m, x: m.b(F.prelu(m.a(x), m.act.weight.cumsum(0))),
        linears((4, 3), (3, 2)) | {"act": nn.PReLU(3)},
        (5, 4),
        "its channels enter a prelu whose tensors are not the model's own",
    ),
    "PReLU along another dimension": (
        lambda m, x: m.b(m.act(m.a(x))),
        linears((4, 3), (3, 2)) | {"act": nn.PReLU(6)},
        (5, 6, 4),
        "its PReLU runs over another dimension than its channels",
    ),
    "a depthwise convolution over positions": (
        lambda m, x: m.b(m.depthwise(m.a(x))),
        linears((4, 3), (2, 2)) | {"depthwise": nn.Conv1d(6, 6, 2, groups=6)},
        (5, 6, 4),
        "depthwise.weight is depthwise over something else than channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "rows of activations are looked up": (
        lambda m, x: m.b(F.embedding(torch.tensor([0, 2, 2, 1, 0]), m.a(x).tanh())),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "a weight that is reshaped": (
        lambda m, x: m.b(F.linear(x.tanh(), m.w.flatten(1)).sin()),
        linears((4, 3), (3, 2)) | {"w": Number(3, 4, 1, 1)},
        (5, 4),
        {"w": 3},
    ),
    "a filter that all channels share": (
        lambda m, x: m.b(F.conv1d(h := m.a(x), m.blur.repeat(h.shape[1], 1, 1), groups=h.shape[1]).tanh()).mean(2),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.Conv1d(3, 2, 1), "blur": Fixed(1, 1, 2)},
        (5, 2, 5),
        {"a": 3},
    ),
    "fixed filters, one each": (
        lambda m, x: m.b(F.conv1d(h := m.a(x), m.blur, groups=h.shape[1]).tanh()).mean(2),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.Conv1d(3, 2, 1), "blur": Fixed(3, 1, 2)},
        (5, 2, 5),
        {"a": 3},
    ),
    "fixed filters whose number is an attribute": (
        lambda m, x: m.b(m.blur(m.a(x)).tanh()).mean(2),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.Conv1d(3, 2, 1), "blur": Blur(3)},
        (5, 2, 5),
        {"a": 3},
    ),
    "a fixed transform reads channels": (
        lambda m, x: F.conv1d(m.a(x).tanh(), m.dct).mean(2),
        {"a": nn.Conv1d(2, 3, 1), "dct": Fixed(4, 3, 2)},
        (5, 2, 5),
        {"a": 3},
    ),
    "a fixed matrix mixes positions": (
        lambda m, x: m.b(F.linear(m.a(x).tanh(), m.graph)).mean(2),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.Conv1d(3, 2, 1), "graph": Fixed(5, 5)},
        (5, 2, 5),
        {"a": 3},
    ),
    "transposed convolutions in blocks": (
        lambda m, x: m.c(m.b(m.a(x).tanh()).sin()).mean(2),
        {"a": nn.Conv1d(2, 6, 1), "b": nn.ConvTranspose1d(6, 4, 2, groups=2), "c": nn.Conv1d(4, 2, 1)},
        (5, 2, 5),
        {"a": 6, "b": 4},
    ),
    "transposed convolutions with two filters for each channel": (
        lambda m, x: m.c(m.b(m.a(x).tanh()).sin()).mean(2),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.ConvTranspose1d(3, 6, 2, groups=3), "c": nn.Conv1d(6, 2, 1)},
        (5, 2, 5),
        {"a": 3},
    ),
    "an activation with slopes that serves two layers": (
        lambda m, x: m.c(m.act(m.b(m.act(m.a(x))))),
        linears((4, 3), (3, 3), (3, 2)) | {"act": nn.PReLU(3)},
        (5, 4),
        {"a": 3},
    ),
    "a layer over sequences": (
        lambda m, x: m.b(F.silu(m.a(x))).mean(1),
        linears((4, 3), (3, 2)),
        (5, 6, 4),
        {"a": 3},
    ),
    "a slope that is computed element by element": (
        lambda m, x: m.b(F.prelu(m.a(x), 2 * m.act.weight)),
        linears((4, 3), (3, 2)) | {"act": nn.PReLU(3)},
        (5, 4),
        {"a": 3},
    ),
    "keyword arguments": (
        lambda m, x: m.b(F.relu(input=F.linear(input=x, weight=m.a.weight, bias=m.a.bias))),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    check_accepted(*ACCEPTED[name], copies)


def test_axes_of_a_depthwise_layer_with_two_filters_each():
    graph = measured(BY_NAME["separable-silu"]).graph
    follower = next(layer for layer in graph["6"].followers if layer.name == "9")
    first = graph["6"].first
    assert [a.slots.tolist() for a in follower.axes] == [[first + i // 2 for i in range(8)]] * 2
    assert {a.role for a in follower.axes} == {Role.FOLLOW}
