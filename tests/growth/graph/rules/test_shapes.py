import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Role
from tests.cases import BY_NAME, measured
from tests.wide import (
    Fixed,
    Net,
    Number,
    check_accepted,
    check_refused,
    check_rest_grows,
    check_split,
    linears,
    sample,
)

REFUSED = {
    "channels that a tensor names": (
        lambda m, x: m.b(m.a(x)[:, torch.tensor([1, 0, 3])]),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor",
    ),
    "channels that a list names": (
        lambda m, x: m.b(m.a(x)[:, [1, 0, 3]]),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor",
    ),
    "channels that are selected": (
        lambda m, x: m.b(m.a(x).index_select(1, torch.tensor([1, 0, 3]))),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor",
    ),
    "some channels at picked positions": (
        lambda m, x: m.b(m.a(x).gather(1, torch.zeros(5, 1, 3, dtype=torch.int64))),
        {"a": nn.Linear(4, 5), "b": nn.Linear(3, 2)},
        (5, 3, 4),
        "its channels are picked by an index tensor",
    ),
    "any element": (
        lambda m, x: m.b(m.a(x).take_along_dim(torch.tensor([1, 0, 3]))).expand(5, 2),
        linears((4, 5), (3, 2)),
        (5, 4),
        "its channels are picked by an index tensor",
    ),
    "a slice of an uneven part": (
        lambda m, x: m.b((h := m.a(x))[:, :2].tanh()) + m.c(h[:, 2:].tanh()),
        linears((4, 5), (2, 2), (3, 2)),
        (5, 4),
        r"the model computes something else when it grows: getitem in .* is given the bounds \[:, :2\] as numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "a class token before positions": (
        lambda m, x: m.b(torch.cat([m.token.expand(len(x), -1, -1), m.a(x).tanh()], 1) + m.places),
        linears((4, 3), (3, 2)) | {"token": Number(1, 1, 3), "places": Number(1, 5, 3)},
        (5, 4, 4),
        {"a": 3},
    ),
    "two tokens behind positions, with fixed places": (
        lambda m, x: m.b((torch.cat([m.a(x), *(t.repeat(5, 1, 1) for t in (m.one, m.two))], 1) + m.places).tanh()),
        linears((4, 3), (3, 2)) | {"one": Number(1, 1, 3), "two": Number(1, 2, 3), "places": Fixed(7, 3)},
        (5, 4, 4),
        {"a": 3},
    ),
    "learnt padding of an image": (
        lambda m, x: m.b(torch.cat([m.a(x), m.pad.expand(5, -1, -1)], 2)).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 2), "pad": Number(1, 3, 1)},
        (5, 2, 5),
        {"a": 3},
    ),
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
    "broadcast together with another tensor": (
        lambda m, x: m.b(torch.mul(*torch.broadcast_tensors(m.a(x), m.c(x.mean(2)).unsqueeze(2)))).mean(2),
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


def halves(y):
    return y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]


def laid_out(y, *shape):
    return y.reshape(y.shape[0], *shape, *y.shape[2:])


# Gates of channels that keep their partners whatever the numbers of copies, in many spellings.
ONE_BY_ONE = {
    "neighbours by unbind": lambda y: laid_out(y, y.shape[1] // 2, 2).unbind(2),
    "neighbours by select": lambda y: [laid_out(y, -1, 2).select(2, i) for i in (0, 1)],
    "neighbours by unflatten": lambda y: [y.unflatten(1, (-1, 2))[:, :, i] for i in (0, 1)],
    "neighbours by slices": lambda y: (y[:, ::2], y[:, 1::2]),
    "halves by unbind": lambda y: laid_out(y, 2, y.shape[1] // 2).unbind(1),
    "halves by slices": halves,
    "halves by chunk": lambda y: y.chunk(2, 1),
    "halves by tensor_split": lambda y: y.tensor_split(2, 1),
    "halves by hsplit": lambda y: torch.hsplit(y, 2),
    "halves by sizes": lambda y: y.split([y.shape[1] // 2] * 2, 1),
    "halves by narrow": lambda y: [y.narrow(1, start, y.shape[1] // 2) for start in (0, y.shape[1] // 2)],
}


def gated(pair):
    return lambda m, x: m.b(torch.mul(*(p.tanh() for p in pair(m.a(x)))))


def convolutions(columns: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": nn.Conv2d(3, 16, 1), "b": nn.Conv2d(columns, 3, 1)}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_pairs_that_stay_together_grow_one_by_one(name):
    model, x = Net(gated(ONE_BY_ONE[name]), **convolutions(8)).double().eval(), sample(2, 3, 4, 4)
    graph = s3d.trace(model, x)
    assert graph.widths == {"a": 8}
    assert not graph.equal_parts
    plan = s3d.plan_from_copies(graph, {"a": torch.tensor([1, 1, 3, 1, 2, 1, 1, 1])}, c=2.5)
    torch.testing.assert_close(s3d.split(model, graph, plan, epsilon=0).model(x), model(x), rtol=0, atol=1e-10)
    check_split(model, x, graph)


def shuffled(y, groups):
    return laid_out(y, groups, y.shape[1] // groups).transpose(1, 2).reshape(y.shape)


SHUFFLES = {
    "by hand": (lambda y: shuffled(y, 2), 2),
    "by unflatten": (lambda y: y.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2), 4),
    "nn.ChannelShuffle": (nn.ChannelShuffle(2), 2),
    "F.channel_shuffle": (lambda y: F.channel_shuffle(y, 4), 4),
    "torch.native_channel_shuffle": (lambda y: torch.native_channel_shuffle(y, 8), 8),
    "pieces of a chunk": (lambda y: torch.cat(y.chunk(2, 1)[::-1], 1), 2),
    "pieces of a split": (lambda y: torch.cat(y.split(y.shape[1] // 4, 1)[::-1], 1), 4),
}


@pytest.mark.parametrize("name", SHUFFLES)
def test_parts_of_a_shuffle_grow_alike(name):
    shuffle, parts = SHUFFLES[name]
    model, x = Net(lambda m, x: m.b(shuffle(m.a(x)).tanh()), **convolutions(16)).double().eval(), sample(2, 3, 4, 4)
    graph = s3d.trace(model, x)
    assert graph.widths == {"a": 16}
    assert [len(cut.parts) for cut in graph.equal_parts] == [parts]
    for seed in range(3):
        plan = s3d.select(s3d.new_neurons(model, graph, seed), graph, s3d.Knapsack(growth=0.8, cost="params"))
        assert plan.neurons % parts == 0
        assert plan.neurons > 0
        torch.testing.assert_close(s3d.split(model, graph, plan).model(x), model(x), rtol=0, atol=1e-10)


def test_rows_of_heads_are_cut_evenly():
    """Every head has its queries, keys and values side by side, and the rest of a dimension takes up what is left."""

    def forward(m, x):
        query, key, value = m.a(x).view(*x.shape[:2], 2, -1).transpose(1, 2).chunk(3, -1)
        return m.b(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    model, x = Net(forward, a=nn.Linear(4, 24), b=nn.Linear(8, 2)).double().eval(), sample(2, 5, 4)
    graph = s3d.trace(model, x)
    assert graph.widths == {"a": 8, "a#2": 8}
    assert [tuple(cut.parts.shape) for cut in graph.equal_parts] == [(6, 4), (2, 12)]
    check_split(model, x, graph)
