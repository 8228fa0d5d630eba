import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Net, Number, check_accepted, check_refused, check_rest_grows, linears, sample


def attend(query: Tensor, key: Tensor, value: Tensor, way: str) -> Tensor:
    """Return what attention with two heads makes of (samples, steps, channels), written in one of several ways."""
    query, key, value = (x.view(*x.shape[:2], 2, -1).transpose(1, 2) for x in (query, key, value))
    if way == "fused":
        out = F.scaled_dot_product_attention(query, key, value)
    elif way == "fused with a scale":
        out = F.scaled_dot_product_attention(query, key, value, scale=0.3)
    elif way == "einsum":
        weights = torch.einsum("bhid,bhjd->bhij", query, key).softmax(-1)
        out = torch.einsum("bhij, bhjd -> bhid", weights, value)
    elif way == "keys first":
        out = (key @ query.mT * 0.5).softmax(-2).mT @ value
    elif way == "masked":
        mask = torch.ones(query.shape[2], key.shape[2]).tril()
        out = (query / 2 @ key.mT + mask.log()).softmax(-1) @ value
    elif way == "bmm":
        weights = (query.flatten(0, 1) @ key.flatten(0, 1).mT).softmax(-1)
        out = (weights.unflatten(0, (-1, 2)) @ value).contiguous()
    else:
        out = (query @ key.transpose(-2, -1)).softmax(-1) @ value
    return out.transpose(1, 2).flatten(2)


def attention(way: str) -> tuple:
    return (
        lambda m, x: m.d(attend(m.c(x), m.e(x), m.a(x), way)).mean(1),
        linears(*[(4, 6)] * 3, (6, 2), (4, 6)),
        (5, 3, 4),
    )


WAYS = ("matmul", "einsum", "keys first", "masked", "fused", "fused with a scale")


def scores(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1)


def normal(x: Tensor) -> Tensor:
    return x / x.abs().mean(-1, keepdim=True)


TWO = "multiplies its channels with those of another tensor"
NEITHER = rf"matmul {TWO}, as queries with keys, and neither can take the weights of copies on its way from a layer"
REFUSED = {
    "queries and keys behind activations": (
        lambda m, x: m.b(scores(m.a(x).relu(), m.c(x).tanh())),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        rf"{NEITHER}, because of tanh and relu; let the keys or the queries come from their layer through .*",
    ),
    "keys and queries that are read by a layer": (
        lambda m, x: m.b(scores(m.a(x), m.c(x))) + m.d(m.c(x)) + m.d(m.a(x)),
        linears((4, 3), (3, 2), (4, 3), (3, 2)),
        (5, 3, 4),
        rf"{NEITHER}, because of linear \(which takes it too\); .*",
    ),
    "queries that are the keys": (
        lambda m, x: m.b((lambda y: scores(y, y))(m.a(x))),
        linears((4, 3), (3, 2)),
        (5, 3, 4),
        rf"{NEITHER}, because of .* \(which takes it too\).*",
    ),
    "one layer for queries and keys": (
        lambda m, x: m.b(scores(m.a(x), m.a(x.flip(1)))),
        linears((4, 3), (3, 2)),
        (5, 3, 4),
        rf"{NEITHER}, because of linear \(which takes it too\); .*",
    ),
    "keys that are values too": (
        lambda m, x: m.b((lambda y: F.scaled_dot_product_attention(m.c(x).tanh(), y, y))(m.a(x))).mean(1),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        rf"scaled_dot_product_attention {TWO}, .* because of scaled_dot_product_attention \(which .*\) and tanh; .*",
    ),
    "keys with a norm of their own": (
        lambda m, x: m.b(scores(m.a(x).tanh(), normal(m.c(x)))),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        rf"{NEITHER}, because of .*",
    ),
    "keys with rotary positions": (
        lambda m, x: m.b(scores(m.a(x) * torch.arange(3.0, dtype=x.dtype).cos(), m.c(x))),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        "mul joins it with a tensor that does not grow with it",
    ),
    "keys whose weight is computed": (
        lambda m, x: m.b(scores(m.a(x).tanh(), F.linear(x, m.c.weight * m.factor))),
        linears((4, 3), (3, 2), (4, 3)) | {"factor": Number(3, 1)},
        (5, 3, 4),
        rf"{NEITHER}, because of a linear without a parameter for each channel and tanh; .*",
    ),
    "keys that are no result of a layer": (
        lambda m, x: m.b(scores(m.a(x), x)),
        linears((4, 4), (3, 2)),
        (5, 3, 4),
        "matmul sums over its channels with factors that are no parameter of the model",
    ),
    "keys of fused attention that are no result of a layer": (
        lambda m, x: m.b(F.scaled_dot_product_attention(m.a(x), x, x)),
        linears((4, 4), (4, 2)),
        (5, 3, 4),
        f"scaled_dot_product_attention {TWO}",
    ),
    "a product with a scale and one with that of the width": (
        lambda m, x: m.b((lambda q, k: scores(q, k) @ F.scaled_dot_product_attention(q, k, x))(m.a(x), m.c(x))),
        linears((4, 3), (4, 2), (4, 3)),
        (5, 3, 4),
        rf"{NEITHER}, because of scaled_dot_product_attention \(which .*",
    ),
    "values that run along the sequence": (
        lambda m, x: m.b(F.scaled_dot_product_attention(x, x, m.a(x).mT)),
        linears((4, 4), (4, 2)),
        (5, 4, 4),
        "scaled_dot_product_attention mixes its channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


def shared_heads(m: nn.Module, x: Tensor) -> Tensor:
    """Four heads of queries, two of keys and of values."""
    query, key, value = (
        layer(x).unflatten(2, (heads, -1)).transpose(1, 2) for layer, heads in ((m.a, 4), (m.c, 2), (m.d, 2))
    )
    out = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    return m.b(out.transpose(1, 2).flatten(2)).mean(1)


ACCEPTED = {
    **{f"attention, {way}": (*attention(way), {"c": 6, "a": 6}) for way in WAYS},
    "values alone": (*attention("bmm"), {"a": 6}),
    "queries and keys alone": (
        lambda m, x: m.b(scores(m.a(x), m.c(x))),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        {"a": 3},
    ),
    "keys behind an activation": (
        lambda m, x: m.b(scores(m.a(x) * 0.3, m.c(x).tanh())),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        {"a": 3},
    ),
    "keys that are values too": (
        lambda m, x: m.b((lambda y: F.scaled_dot_product_attention(m.c(x), y, y))(m.a(x))).mean(1),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        {"a": 3},
    ),
    "queries that a layer reads too": (
        lambda m, x: m.b(scores(m.a(x), m.c(x))) + m.d(m.a(x).tanh()),
        linears((4, 3), (3, 2), (4, 3), (3, 2)),
        (5, 3, 4),
        {"a": 3},
    ),
    "keys of two products": (
        lambda m, x: m.b(scores(m.a(x), m.k(x)) + scores(m.c(x), m.k(x))),
        linears((4, 3), (3, 2), (4, 3)) | {"k": nn.Linear(4, 3)},
        (5, 3, 4),
        {"a": 3},
    ),
    "keys of a transposed weight": (
        lambda m, x: m.b(scores(m.a(x), torch.addmm(m.bias, x[0], m.weight))),
        linears((4, 3), (3, 2)) | {"weight": Number(4, 3), "bias": Number(3)},
        (5, 3, 4),
        {"a": 3},
    ),
    "keys with a factor of their own": (
        lambda m, x: m.b(scores(m.a(x).sigmoid(), -(m.c(x) * m.factor))),
        linears((4, 3), (3, 2), (4, 3)) | {"factor": Number(3)},
        (5, 3, 4),
        {"a": 3},
    ),
    "keys with the channels first": (
        lambda m, x: m.b(torch.einsum("bcn,bcm->bnm", m.a(x), m.norm(m.c(x))).softmax(-1).mean(1)),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.Linear(4, 2), "c": nn.Conv1d(2, 3, 1), "norm": nn.BatchNorm1d(3)},
        (5, 2, 4),
        {"a": 3},
    ),
    "keys with filters for each channel": (
        lambda m, x: m.b((m.a(x).tanh().mT @ m.deep(m.c(x).tanh())).softmax(-1).mean(1)),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.Linear(4, 2), "c": nn.Conv1d(2, 3, 1)}
        | {"deep": nn.Conv1d(3, 3, 3, padding=1, groups=3)},
        (5, 2, 4),
        {"a": 3},
    ),
    "heads that several queries share": (
        shared_heads,
        linears((4, 12), (12, 2), (4, 6), (4, 6)),
        (5, 3, 4),
        {"a": 6, "d": 6},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    check_accepted(*ACCEPTED[name], copies)


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_cost_of_the_grown_network_is_known(name):
    forward, modules, shape, _ = ACCEPTED[name]
    model = Net(forward, **modules).double().eval()
    graph = s3d.trace(model, sample(*shape))
    copies = {group.name: torch.full((group.width,), 2) for group in graph.splittable_groups}
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, copies), epsilon=0).model
    assert s3d.count(s3d.trace(grown, sample(*shape))) == s3d.count(graph, graph.per_channel(copies))


@pytest.mark.parametrize("way", WAYS)
def test_one_layer_may_make_queries_keys_and_values(way):
    model = Net(lambda m, x: m.b(attend(*m.a(x).chunk(3, -1), way)).mean(1), **linears((4, 18), (6, 2))).double()
    graph = s3d.trace(model, sample(5, 3, 4))
    assert graph.widths == {"a": 6, "a#2": 6}
    copies = s3d.with_equal_parts(graph, {"a": torch.tensor([3, 1, 1, 1, 2, 1])})
    assert copies["a"].view(2, 3).sum(1).tolist() == copies["a#2"].view(2, 3).sum(1).tolist() == [5, 5]
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=3.0), epsilon=0)
    torch.testing.assert_close(result.model(sample(5, 3, 4)), model(sample(5, 3, 4)), rtol=0, atol=1e-12)


def test_a_scale_that_is_made_of_the_width_while_the_model_runs_is_refused():
    def forward(m, x):
        query = m.a(x)
        return m.b((query / query.shape[-1] ** 0.5 @ m.c(x).mT).softmax(-1))

    group = s3d.trace(Net(forward, **linears((4, 3), (3, 2), (4, 3))), torch.randn(5, 3, 4))["a"]
    assert "truediv" in group.reason or "div" in group.reason
