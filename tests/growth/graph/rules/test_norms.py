import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Number, check_accepted, check_refused, check_rest_grows, linears, sample

REFUSED = {
    "batch norm without running statistics": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 3), (3, 2)) | {"norm": nn.BatchNorm1d(3, track_running_stats=False)},
        (5, 4),
        "its batch norm takes the statistics of the batch",
    ),
    "batch norm along another dimension": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 3), (3, 2)) | {"norm": nn.BatchNorm1d(6)},
        (5, 6, 4),
        "its batch norm runs over another dimension than its channels",
    ),
    "batch norm that always takes the statistics of the batch": (
        lambda m, x: m.b(F.batch_norm(m.a(x), m.norm.running_mean, m.norm.running_var, training=True)),
        linears((4, 3), (3, 2)) | {"norm": nn.BatchNorm1d(3)},
        (5, 4),
        "its batch norm takes the statistics of the batch",
    ),
    "layer norm over a single channel": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 1), (1, 2)) | {"norm": nn.LayerNorm(1)},
        (5, 4),
        "norm may average it: of a single channel the trace cannot tell along which dimension it runs",
    ),
    "layer norm of channels that cannot be split": (
        lambda m, x: m.b(m.norm(torch.cat([m.a(x), h := m.c(x)], 1))) + h.sum(),
        linears((4, 3), (5, 2), (4, 2)) | {"norm": nn.LayerNorm(5)},
        (5, 4),
        r"norm averages them together with channels that cannot be split \(c: sum reduces over its channels; write "
        r"mean, which stays as it is when channels are split\)",
    ),
    "group norm of channels that run along another dimension": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 3), (3, 2)) | {"norm": nn.GroupNorm(2, 6)},
        (5, 6, 4),
        "group_norm runs over another dimension than its channels",
    ),
    "layer norm of channels at some positions and of constants at others": (
        lambda m, x: m.b(m.norm(torch.cat((x.new_ones(len(x), 1, 3), m.a(x).tanh()), 1))).mean(1),
        linears((4, 3), (3, 2)) | {"norm": nn.LayerNorm(3)},
        (5, 2, 4),
        "norm mixes channels that run along several dimensions",
    ),
    "root mean square norm over several dimensions of channels": (
        lambda m, x: m.b(F.rms_norm(m.a(x).view(5, 2, 3), (2, 3)).flatten(1)),
        linears((4, 6), (6, 2)),
        (5, 4),
        "rms_norm mixes channels that run along several dimensions",
    ),
    "local response norm": (
        lambda m, x: m.b(m.norm(m.a(x))).mean(2),
        {"a": nn.Conv1d(4, 3, 1), "b": nn.Conv1d(3, 2, 1), "norm": nn.LocalResponseNorm(2)},
        (5, 4, 4),
        "local_response_norm mixes its channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "layer norm": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 3), (3, 2)) | {"norm": nn.LayerNorm(3)},
        (5, 4),
        {"a": 3},
    ),
    "layer norm as a function": (
        lambda m, x: m.b(F.layer_norm(h := m.a(x).tanh(), h.shape[-1:], m.scale)),
        linears((4, 3), (3, 2)) | {"scale": Number(3)},
        (5, 2, 4),
        {"a": 3},
    ),
    "layer norm of every head, with the same scale": (
        lambda m, x: m.b(F.layer_norm(h := m.a(x).tanh().view(5, 2, -1), h.shape[-1:], m.scale).flatten(1)),
        linears((4, 6), (6, 2)) | {"scale": Number(3)},
        (5, 4),
        {"a": 3},
    ),
    "layer norm of other channels at some positions": (
        lambda m, x: m.b(m.norm(torch.cat((m.c(x[:, :1]), m.a(x)), 1).tanh())).mean(1),
        linears((4, 3), (3, 2), (4, 3)) | {"norm": nn.LayerNorm(3)},
        (5, 2, 4),
        {"c": 3},
    ),
    "layer norm over channels and positions": (
        lambda m, x: m.b(m.norm(m.a(x))).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "norm": nn.LayerNorm((3, 4))},
        (5, 2, 5),
        {"a": 3},
    ),
    "layer norm of two layers side by side": (
        lambda m, x: m.b(m.norm(torch.cat([m.a(x), m.c(x)], 1))),
        linears((4, 3), (5, 2), (4, 2)) | {"norm": nn.LayerNorm(5)},
        (5, 4),
        {"a": 3, "c": 2},
    ),
    "group norm of two channels each": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 4), (4, 2)) | {"norm": nn.GroupNorm(2, 4)},
        (5, 4),
        {"a": 4},
    ),
    "group norm of all channels": (
        lambda m, x: m.b(m.norm(m.a(x))).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "norm": nn.GroupNorm(1, 3)},
        (5, 2, 5),
        {"a": 3},
    ),
    "root mean square norm": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 3), (3, 2)) | {"norm": nn.RMSNorm(3)},
        (5, 4),
        {"a": 3},
    ),
    "root mean square norm that is written out": (
        lambda m, x: m.b(m.scale * (h := m.a(x)) * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)),
        linears((4, 3), (3, 2)) | {"scale": Number(3)},
        (5, 4),
        {"a": 3},
    ),
    "layer norm that is written out": (
        lambda m, x: m.b(((h := m.a(x)) - h.mean(-1, True)) / (h.var(-1, False, True) + 1e-5).sqrt()),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "group norm that is written out": (
        lambda m, x: m.b(((h := m.a(x).unflatten(1, (2, -1))) / h.std(2, correction=0, keepdim=True)).flatten(1)),
        linears((4, 4), (4, 2)),
        (5, 4),
        {"a": 4},
    ),
    "batch norm without affine parameters": (
        lambda m, x: m.b(m.norm(m.a(x)).tanh()),
        linears((4, 3), (3, 2)) | {"norm": nn.BatchNorm1d(3, affine=False)},
        (5, 4),
        {"a": 3},
    ),
    "batch norm of a flattened convolution": (
        lambda m, x: m.b(m.norm(m.a(x).flatten(1)).tanh()),
        {"a": nn.Conv1d(2, 3, 2), "norm": nn.BatchNorm1d(12), "b": nn.Linear(12, 2)},
        (5, 2, 5),
        {"a": 3},
    ),
    "group norm of every channel": (
        lambda m, x: m.b(m.norm(m.a(x)).tanh()).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "norm": nn.GroupNorm(3, 3), "b": nn.Conv1d(3, 2, 1)},
        (5, 2, 5),
        {"a": 3},
    ),
    "group norm of as many groups as there are channels": (
        lambda m, x: m.b(F.group_norm(h := m.a(x), h.shape[1], m.scale).tanh()).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "scale": Number(3)},
        (5, 2, 5),
        {"a": 3},
    ),
    "layer norm over positions": (
        lambda m, x: m.b(m.norm(m.a(x)).tanh()).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "norm": nn.LayerNorm(4)},
        (5, 2, 5),
        {"a": 3},
    ),
    "root mean square norm over positions": (
        lambda m, x: m.b(F.rms_norm(m.a(x), (4,)).tanh()).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1)},
        (5, 2, 5),
        {"a": 3},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    check_accepted(*ACCEPTED[name], copies)


def test_a_module_with_one_group_for_each_channel_keeps_that():
    norm = nn.GroupNorm(3, 3)
    model = nn.Sequential(nn.Conv1d(2, 3, 2), norm, nn.Tanh(), nn.Conv1d(3, 2, 1)).double().eval()
    graph = s3d.trace(model, sample(5, 2, 5))
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.tensor([2, 1, 1])}), epsilon=0).model
    assert (grown[1].num_groups, grown[1].num_channels) == (4, 4)
