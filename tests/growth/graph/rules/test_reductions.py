import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.wide import check_accepted, check_refused, check_rest_grows, linears

REFUSED = {
    "a sum over the channels of every part": (
        lambda m, x: m.b(m.a(x).view(len(x), 2, -1).sum(2)),
        linears((4, 6), (2, 2)),
        (5, 4),
        "sum reduces over its channels",
    ),
    "a softmax over the channels of every part": (
        lambda m, x: m.b(m.a(x).unflatten(1, (2, -1)).softmax(2).flatten(1)),
        linears((4, 6), (6, 2)),
        (5, 4),
        "softmax mixes its channels",
    ),
    "an unknown function": (
        lambda m, x: m.b(torch.softmax(m.a(x), -1)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "softmax mixes its channels",
    ),
    "a mean over one channel": (
        lambda m, x: m.b(m.a(x).mean(1)),
        {"a": nn.Conv1d(2, 1, 2), "b": nn.Linear(5, 2)},
        (5, 2, 6),
        "mean may average it: of a single channel the trace cannot tell along which dimension it runs",
    ),
    "a sum over everything": (
        lambda m, x: m.b(x) + m.a(x).sum(),
        linears((4, 3), (4, 2)),
        (5, 4),
        "sum reduces over its channels",
    ),
    "a norm over channels": (
        lambda m, x: m.b(h := m.a(x)) + h.norm(dim=-1, keepdim=True),
        linears((4, 3), (3, 2)),
        (5, 4),
        "norm reduces over its channels",
    ),
    "another norm over channels": (
        lambda m, x: m.b(h := m.a(x)) + torch.linalg.vector_norm(h, dim=-1, keepdim=True),
        linears((4, 3), (3, 2)),
        (5, 4),
        "vector_norm reduces over its channels",
    ),
    "a variance over channels less one": (
        lambda m, x: m.b(h := m.a(x)) * h.var(-1, keepdim=True),
        linears((4, 3), (3, 2)),
        (5, 4),
        "var divides by one less than the number of its channels",
    ),
    "a deviation over channels less one": (
        lambda m, x: m.b(h := m.a(x)) * torch.std_mean(h, -1, True, True)[0],
        linears((4, 3), (3, 2)),
        (5, 4),
        "std_mean divides by one less than the number of its channels",
    ),
    "a mean of channels and constants": (
        lambda m, x: m.b(h := m.a(x)) * torch.cat([h, x.new_ones(5, 2)], 1).mean(1, keepdim=True),
        linears((4, 3), (3, 2)),
        (5, 4),
        "mean averages it together with entries that are no channels of a layer",
    ),
    "a mean with channels that cannot be split": (
        lambda m, x: m.b(h := m.a(x)) * torch.cat([h, m.c(x).softmax(-1)], 1).mean(1, keepdim=True),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        "mean averages it together with entries that are no channels of a layer",
    ),
    "a mean with channels that are put out": (
        lambda m, x: (m.b(h := m.a(x)) * torch.cat([h, c := m.c(x)], 1).mean(1, keepdim=True), c),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        r"mean averages them together with channels that cannot be split \(c: it is an output of the network\)",
    ),
    "pooling across channels": (
        lambda m, x: m.b(F.max_pool1d(m.a(x), 3)),
        linears((4, 6), (2, 2)),
        (5, 4),
        "max_pool1d pools across its channels",
    ),
    "channels that are normalised": (
        lambda m, x: m.b(F.normalize(m.a(x), dim=-1)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "normalize mixes its channels in .*; write F.rms_norm, .*",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "a mean over channels": (
        lambda m, x: m.b(m.a(x).mean(1)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(5, 2)},
        (5, 2, 6),
        {"a": 3},
    ),
    "a deviation over channels": (
        lambda m, x: m.b((h := m.a(x).tanh()) / h.std(-1, correction=0, keepdim=True)),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "a variance and a mean over channels": (
        lambda m, x: m.b(((h := m.a(x).tanh()) - (v := torch.var_mean(h, -1, False, True))[1]) * v[0]),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "a deviation of everything": (
        lambda m, x: m.b((h := m.a(x).tanh()) / torch.std(h, False)),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "a mean over the channels of every part": (
        lambda m, x: m.b((m.a(x).tanh().view(len(x), 2, -1) ** 2).mean(2)),
        linears((4, 6), (2, 2)),
        (5, 4),
        {"a": 6},
    ),
    "a norm over positions": (
        lambda m, x: m.b(m.a(x).norm(p=2, dim=(1, 2)) + torch.linalg.vector_norm(m.c(x), 3, dim=(1, 2))),
        {"a": nn.Linear(2, 3), "b": nn.Linear(3, 2), "c": nn.Linear(2, 3)},
        (5, 2, 2, 2),
        {"a": 3},
    ),
    "norms over positions, relative to their mean": (
        lambda m, x: m.b((h := m.a(x)) * (n := h.norm(dim=1, keepdim=True)) / n.mean(-1, keepdim=True)),
        linears((4, 3), (3, 2)),
        (5, 2, 4),
        {"a": 3},
    ),
    "a mean of two layers side by side": (
        lambda m, x: m.b((h := torch.cat([m.a(x), m.c(x)], 1).tanh()) - h.mean(1, keepdim=True)),
        linears((4, 3), (5, 2), (4, 2)),
        (5, 4),
        {"a": 3, "c": 2},
    ),
    "a sum over a stack": (
        lambda m, x: m.b(torch.stack([m.a(x), m.c(x)], 1).sum(1).tanh()),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "a mean over a stack at the end": (
        lambda m, x: m.b(torch.stack([m.a(x), m.c(x)], -1).mean(-1).tanh()),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "a concatenation along a new dimension": (
        lambda m, x: m.b(torch.cat([m.a(x)[:, None], m.c(x)[:, None]], 1).logsumexp(1)),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "the blocks of one layer are added": (
        lambda m, x: m.b(m.a(x).tanh().view(len(x), 2, -1).sum(1)),
        linears((4, 6), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "the larger one of two blocks": (
        lambda m, x: m.b(m.a(x).tanh().unflatten(1, (2, -1)).max(1)[0]),
        linears((4, 6), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "experts with weights for each sample": (
        lambda m, x: m.b((x[:, :2].softmax(1)[..., None] * torch.stack([m.a(x), m.c(x)], 1).tanh()).sum(1)),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "branches that one gate multiplies": (
        lambda m, x: m.b((m.d(x)[:, None] * torch.stack([m.a(x), m.c(x)], 1).tanh()).sum(1)),
        linears((4, 3), (3, 2), (4, 3), (4, 3)),
        (5, 4),
        {"d": 3},
    ),
    "weights of the branches that are channels": (
        lambda m, x: m.b((m.a(x).view(len(x), 2, -1).softmax(1) * torch.stack([m.c(x), m.d(x)], 1)).sum(1)),
        linears((4, 6), (3, 2), (4, 3), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "three dimensions": (
        lambda m, x: m.b(F.adaptive_max_pool3d(m.a(x), 1).squeeze(-1).squeeze(-1).squeeze(-1)),
        {"a": nn.Conv3d(1, 3, 2), "b": nn.Linear(3, 2)},
        (5, 1, 3, 3, 3),
        {"a": 3},
    ),
    "an extreme over positions": (
        lambda m, x: m.b(m.a(x).amax(dim=[-1], keepdim=False)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(3, 2)},
        (5, 2, 5),
        {"a": 3},
    ),
    "an axis that is called so": (
        lambda m, x: m.b(m.a(x).max(axis=2)[0] + m.c(x).mean(axis=-1)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(3, 2), "c": nn.Conv1d(2, 3, 1)},
        (5, 2, 5),
        {"a": 3},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    check_accepted(*ACCEPTED[name], copies)
