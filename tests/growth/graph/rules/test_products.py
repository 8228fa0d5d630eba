import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Fixed, Net, Number, check_accepted, check_refused, check_rest_grows, linears, sample


def attend(query: Tensor, key: Tensor, value: Tensor, way: str) -> Tensor:
    """Return what attention with two heads makes of (samples, steps, channels), written in one of several ways."""
    query, key, value = (x.view(*x.shape[:2], 2, -1).transpose(1, 2) for x in (query, key, value))
    if way == "fused":
        out = F.scaled_dot_product_attention(query, key, value)
    elif way == "einsum":
        weights = torch.einsum("bhid,bhjd->bhij", query, key).softmax(-1)
        out = torch.einsum("bhij, bhjd -> bhid", weights, value)
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


WAYS = ("matmul", "einsum", "fused", "bmm")
TWO = "multiplies its channels with those of another tensor"
REFUSED = {
    "a matrix product": (
        lambda m, x: m.b(m.a(x) @ torch.ones(3, 3, dtype=x.dtype)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "matmul sums over its channels with factors that are no parameter of the model",
    ),
    "queries and keys": (
        lambda m, x: m.b((m.a(x) @ m.c(x).mT).softmax(-1)),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 3, 4),
        f"matmul {TWO}, as queries with keys",
    ),
    "queries and keys of fused attention": (
        lambda m, x: m.b(F.scaled_dot_product_attention(m.a(x), m.c(x), x)),
        linears((4, 4), (4, 2), (4, 4)),
        (5, 3, 4),
        f"scaled_dot_product_attention {TWO}",
    ),
    "values that run along the sequence": (
        lambda m, x: m.b(F.scaled_dot_product_attention(x, x, m.a(x).mT)),
        linears((4, 4), (4, 2)),
        (5, 4, 4),
        "scaled_dot_product_attention mixes its channels",
    ),
    "a factor for each channel": (
        lambda m, x: m.b(torch.einsum("bc,bc->bc", m.a(x), torch.arange(15).reshape(5, 3).to(x))),
        linears((4, 3), (3, 2)),
        (5, 4),
        "mul joins it with a tensor that does not grow with it",
    ),
    "channels along the samples of a product": (
        lambda m, x: m.b((x[:, :3, None, None] @ m.a(x)[:, :, None, None])[..., 0, 0]),
        linears((6, 3), (3, 2)),
        (5, 6),
        "its channels enter matmul, which has no exact rule",
    ),
    "channels in the order of the blocks": (
        lambda m, x: m.b(torch.bmm(m.a(x)[:, :, None].transpose(0, 1), m.stack).sum(0)),
        linears((4, 3), (3, 2)) | {"stack": Number(3, 1, 3)},
        (5, 4),
        "its channels enter bmm, which has no exact rule",
    ),
    "a bilinear layer": (
        lambda m, x: m.b(m.bilinear(m.a(x), x)),
        linears((4, 3), (3, 2)) | {"bilinear": nn.Bilinear(3, 4, 3)},
        (5, 4),
        "its channels enter bilinear, which has no exact rule",
    ),
    "a product that is multiplied": (
        lambda m, x: m.b(torch.addmm(m.c.bias, m.a(x), m.c.weight, alpha=2)),
        linears((4, 3), (3, 2), (3, 3)),
        (5, 4),
        "its channels enter addmm, which has no exact rule",
    ),
    "three factors": (
        lambda m, x: m.b(torch.einsum("bc,cd,d->bd", m.a(x), m.c.weight, m.c.bias)),
        linears((4, 3), (3, 2), (3, 3)),
        (5, 4),
        "its channels enter einsum, which has no exact rule",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    **{f"values of attention, {way}": (*attention(way), {"a": 6}) for way in WAYS},
    "heads that several queries share": (
        lambda m, x: m.b(
            F.scaled_dot_product_attention(
                x.view(5, 3, 4, 1).transpose(1, 2),
                x.view(5, 3, 4, 1).transpose(1, 2)[:, ::2],
                m.a(x).view(5, 3, 2, -1).transpose(1, 2),
                enable_gqa=True,
            )
            .transpose(1, 2)
            .flatten(2)
        ).mean(1),
        linears((4, 6), (12, 2)),
        (5, 3, 4),
        {"a": 6},
    ),
    "attention with the channels first": (
        lambda m, x: m.b(m.a(x).tanh() @ (x.mT @ x).softmax(1)).mean(2),
        {"a": nn.Conv1d(2, 3, 1), "b": nn.Conv1d(3, 2, 1)},
        (5, 2, 4),
        {"a": 3},
    ),
    "a sum over parts with factors of their own": (
        lambda m, x: m.b(torch.einsum("pb,bpc->bc", x.T.softmax(0), m.a(x).unflatten(1, (4, -1)).tanh())),
        linears((4, 8), (2, 2)),
        (5, 4),
        {"a": 2},
    ),
    "values of linear attention": (
        lambda m, x: m.b(m.c(x) @ (m.d(x).mT @ m.a(x).tanh())).mean(1),
        linears((4, 3), (3, 2), (4, 3), (4, 3)),
        (5, 3, 4),
        {"a": 3},
    ),
    "a graph convolution": (
        lambda m, x: m.b(F.silu(m.graph @ m.a(x))).mean(1),
        linears((4, 3), (3, 2)) | {"graph": Fixed(3, 3)},
        (5, 3, 4),
        {"a": 3},
    ),
    "a graph with weights that are learnt": (
        lambda m, x: m.b(F.silu(torch.einsum("ij,bjc->bic", m.graph, m.a(x)))).mean(1),
        linears((4, 3), (3, 2)) | {"graph": Number(3, 3)},
        (5, 3, 4),
        {"a": 3},
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


@pytest.mark.parametrize("way", WAYS[:3])
def test_channels_of_attention_in_one_layer_are_refused(way):
    model = Net(lambda m, x: m.b(attend(*m.a(x).chunk(3, -1), way)).mean(1), **linears((4, 18), (6, 2))).double()
    group = s3d.trace(model, sample(5, 3, 4))["a"]
    assert TWO in group.reason
