"""What the notes of a trace make of parameters that are used in several places."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Net, Number, check_refused, check_rest_grows, expect_reason, linears, sample


def tied() -> dict[str, nn.Module]:
    """Return linear layers a to d, of which b and c have one weight."""
    modules = linears((4, 3), (3, 3), (3, 3), (3, 2))
    modules["c"].weight = modules["b"].weight
    return modules


REFUSED = {
    "a parameter of two layers": (
        lambda m, x: m.d(m.c(torch.tanh(m.b(torch.tanh(m.a(x)))))),
        tied(),
        (5, 4),
        "the parameter b.weight is used more than once",
    ),
    "a weight that is also used by itself": (
        lambda m, x: m.c(m.b(m.a(x).tanh()).tanh()) + m.a.weight.mean(),
        linears((4, 3), (3, 3), (3, 2)),
        (5, 4),
        "the parameter a.weight also enters mean",
    ),
    "weights that are sorted": (
        lambda m, x: F.linear(m.b(m.a(x).sigmoid()), m.b.weight.t()) + m.a.weight.sort(0)[0][0].mean(),
        linears((4, 3), (3, 2)),
        (5, 4),
        "the parameter b.weight is used more than once",
    ),
    "transposed weights": (
        lambda m, x: F.linear(F.linear(m.b(m.a(x).sigmoid()), m.b.weight.t()).sigmoid(), m.a.weight.t()),
        linears((4, 3), (3, 2)),
        (5, 4),
        "the parameter b.weight is used more than once",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


def test_a_parameter_that_is_used_twice_refuses_only_the_channels_that_it_touches():
    weights = {"u": Number(4, 5), "v": Number(5, 4), "tied": Number(4, 4)}
    model = Net(lambda m, x: (((x @ m.u).tanh() @ m.v) @ m.tied).tanh() @ m.tied.T, **weights).double()
    graph = s3d.trace(model, sample(6, 4))
    assert graph.widths == {"u": 5}
    expect_reason(graph["v"], "the parameter tied is used more than once")
    assert graph["tied"].reason == graph["v"].reason


def test_an_embedding_that_is_tied_to_the_head_lets_the_rest_grow():
    embedding, head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False)
    head.weight = embedding.weight
    model = Net(lambda m, x: m.head(m.b(m.a(m.e(x)).tanh())), e=embedding, head=head, **linears((4, 6), (6, 4)))
    graph = s3d.trace(model.double(), torch.randint(7, (3, 5)))
    assert graph.widths == {"a": 6}
    expect_reason(graph["e"], "the parameter e.weight is used more than once")
