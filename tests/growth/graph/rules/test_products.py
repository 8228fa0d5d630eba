import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Fixed, Net, Number, check_accepted, check_refused, check_rest_grows, linears, sample

REFUSED = {
    "a matrix product": (
        lambda m, x: m.b(m.a(x) @ torch.ones(3, 3, dtype=x.dtype)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "matmul sums over its channels with factors that are no parameter of the model",
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
