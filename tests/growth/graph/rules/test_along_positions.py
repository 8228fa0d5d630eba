import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests import reference
from tests.wide import Fixed, Net, check_accepted, check_refused, check_rest_grows, expect_reason, linears, sample

REFUSED = {
    "a window over channels, as in efficient channel attention": (
        lambda m, x: m.b((h := m.a(x).tanh()) * m.slide(h.unsqueeze(1)).squeeze(1).sigmoid()),
        linears((4, 6), (6, 2)) | {"slide": nn.Conv1d(1, 1, 3, padding=1)},
        (5, 4),
        "slide.weight slides along its channels and mixes neighbours, .*; write .*",
    ),
    "every second channel": (
        lambda m, x: m.b(F.conv1d(m.a(x).tanh().unsqueeze(1), m.mix, stride=2).squeeze(1)),
        linears((4, 6), (3, 2)) | {"mix": Fixed(1, 1, 1)},
        (5, 4),
        "mix slides along its channels .*; write .*",
    ),
    "zeros beside channels": (
        lambda m, x: m.b(F.conv1d(m.a(x).tanh().unsqueeze(1), m.mix, padding=1).squeeze(1)),
        linears((4, 6), (8, 2)) | {"mix": Fixed(1, 1, 1)},
        (5, 4),
        "mix slides along its channels .*; write .*",
    ),
    "a weight over positions that is computed from the input": (
        lambda m, x: m.b(F.linear(m.a(x).tanh().mT, x[0] @ x[0].T).mT).mean(1),
        linears((4, 6), (6, 2)),
        (5, 3, 4),
        "its channels enter a linear whose weight is not a parameter of the model",
    ),
    "hidden units over positions that are more than the channels": (
        lambda m, x: m.d(m.c(m.b(m.a(x).tanh().mT).tanh()).mean((1, 2))[:, None]),
        linears((4, 2), (3, 6), (6, 3), (1, 2)),
        (5, 3, 4),
        "b.weight reads it along another dimension than its channels in b .*; .* the rows of b.weight can be split",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "a residual over tokens": (
        lambda m, x: m.b((h := m.a(x).tanh()) + m.mix(h.mT).tanh().mT).mean(1),
        linears((4, 6), (6, 2)) | {"mix": nn.Linear(3, 3)},
        (5, 3, 4),
        {"a": 6},
    ),
    "fewer tokens, the weight transposed": (
        lambda m, x: m.b(F.linear(m.a(x).tanh().mT, m.mix.weight.T).mT.tanh()).mean(1),
        linears((4, 6), (6, 2)) | {"mix": nn.Linear(2, 3)},
        (5, 3, 4),
        {"a": 6},
    ),
    "a weight that is computed": (
        lambda m, x: m.b(F.linear(m.a(x).tanh().mT, m.mix.weight.softmax(1), m.mix.bias.exp()).mT.tanh()).mean(1),
        linears((4, 6), (6, 2)) | {"mix": nn.Linear(3, 2)},
        (5, 3, 4),
        {"a": 6},
    ),
    "a convolution over tokens": (
        lambda m, x: m.b(m.mix(m.a(x).tanh())).mean(1),
        linears((4, 6), (6, 2)) | {"mix": nn.Conv1d(3, 2, 1)},
        (5, 3, 4),
        {"a": 6},
    ),
    "a depthwise convolution over tokens": (
        lambda m, x: m.b(m.mix(m.a(x).tanh()).sin()).mean(1),
        linears((4, 6), (6, 2)) | {"mix": nn.Conv1d(3, 6, 1, groups=3)},
        (5, 3, 4),
        {"a": 6},
    ),
    "a window over positions behind the channels": (
        lambda m, x: m.b(m.mix(m.a(x).tanh().unflatten(1, (2, 3)).transpose(2, 3)).mean((1, 3))),
        linears((4, 6), (6, 2)) | {"mix": nn.Conv2d(2, 2, (1, 3), padding=(0, 1), stride=(1, 2))},
        (5, 6, 4),
        {"a": 6},
    ),
    "a layer over tokens that is called twice": (
        lambda m, x: m.b(m.mix(m.mix(m.a(x).tanh().mT).tanh()).mT).mean(1),
        linears((4, 6), (6, 2)) | {"mix": nn.Linear(3, 3)},
        (5, 3, 4),
        {"a": 6},
    ),
    "a norm over all channels before it": (
        lambda m, x: m.b((h := m.a(x).tanh()) + m.mix(m.norm(h).mT).mT).mean(1),
        linears((4, 6), (6, 2)) | {"mix": nn.Linear(3, 3), "norm": nn.LayerNorm(6)},
        (5, 3, 4),
        {"a": 6},
    ),
    "hidden units over positions, where the channels cannot be split": (
        lambda m, x: m.c(m.b(m.a(x).tanh().mT).tanh()).flatten(1).cumsum(1),
        linears((4, 6), (3, 5), (5, 3)),
        (5, 3, 4),
        {"b": 5},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    check_accepted(*ACCEPTED[name], copies)


def mixer() -> nn.Module:
    return Net(
        lambda m, x: m.b((h := m.a(x).tanh()) + m.down(m.up(h.mT).tanh()).mT).mean(1),
        **linears((4, 6), (6, 2)) | {"up": nn.Linear(3, 5), "down": nn.Linear(5, 3)},
    ).double()


def test_rows_of_such_layers_are_positions():
    graph = s3d.trace(mixer(), sample(5, 3, 4))
    for name in ("up", "down"):
        expect_reason(graph[name], f"its rows are positions of the channels that pass {name}.weight")


def test_it_costs_as_much_more_as_there_are_more_channels():
    graph = s3d.trace(mixer(), sample(5, 3, 4))
    copies = graph.per_channel({"a": torch.tensor([3, 1, 1, 2, 1, 1])})
    assert s3d.count(graph).macs == 3 * 4 * 6 + 2 * 6 * 3 * 5 + 3 * 6 * 2
    assert s3d.count(graph, copies).macs == 3 * 4 * 9 + 2 * 9 * 3 * 5 + 3 * 9 * 2


def test_channels_pass_where_that_lets_more_rows_grow_and_a_smaller_network_is_read_in_the_same_way():
    graph = s3d.trace(model := mixer(), sample(5, 3, 4))
    assert graph.channels_pass
    smaller = s3d.remove(model, graph, {"a": [0, 4]})
    assert smaller.graph.widths == {"a": 2}
    assert s3d.trace(smaller.model, sample(5, 3, 4)).widths == {"up": 5}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return sample(5, 3, 4), torch.tensor([0, 1, 1, 0, 1])


def test_splitting_matrices_see_the_layers_that_channels_pass():
    model = mixer()
    graph = s3d.trace(model, sample(5, 3, 4))
    expected = reference.splitting_matrices(model, graph["a"], batch(), F.cross_entropy)
    for operator in (s3d.SplittingOperator, s3d.PlainSplittingOperator):
        torch.testing.assert_close(operator(model, graph, [batch()], F.cross_entropy).dense("a"), expected)


def test_a_small_split_changes_the_loss_as_predicted():
    model = mixer()
    graph = s3d.trace(model, sample(5, 3, 4))
    spectrum = s3d.spectrum(s3d.SplittingOperator(model, graph, [batch()], F.cross_entropy))
    plan = s3d.plan_from_copies(graph, {"a": torch.tensor([2, 1, 3, 2, 4, 1])}, spectrum, c=1.3)
    assert plan.gain < 0
    before, after = (
        F.cross_entropy(network(batch()[0]), batch()[1])
        for network in (model, s3d.split(model, graph, plan, epsilon=1e-3).model)
    )
    assert (after - before).item() == pytest.approx(1e-6 / 2 * plan.gain, rel=1e-2)
