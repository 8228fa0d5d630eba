"""The run itself: what is asked of a rule, and which errors are whose."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.graph.rule_table import Rule
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.tracer import Tracer
from tests.wide import Net


def chain(forward: Callable[..., object]) -> Net:
    return Net(lambda m, x: m.b(forward(m.a(x))), a=nn.Linear(4, 3), b=nn.Linear(3, 2))


def broken(notes: object, call: object, out: Tensor, input: Tensor) -> None:
    [][1]


@pytest.mark.parametrize("trace", [read_graph, s3d.trace])
def test_a_bug_in_a_rule_comes_out_as_it_is(monkeypatch, trace):
    monkeypatch.setitem(RULES, "tanh", Rule(broken, ("input",)))
    with pytest.raises(IndexError, match="list index out of range"):
        trace(chain(torch.tanh), torch.randn(5, 4))


def test_a_bug_in_a_rule_comes_out_even_if_the_model_catches_errors(monkeypatch):
    def careful(x: Tensor) -> Tensor:
        try:
            return torch.tanh(x)
        except IndexError:
            return x

    monkeypatch.setitem(RULES, "tanh", Rule(broken, ("input",)))
    with pytest.raises(IndexError, match="list index out of range"):
        read_graph(chain(careful), torch.randn(5, 4))


@pytest.mark.parametrize(
    "forward, name",
    [
        (lambda x: torch.pow(input=x, exponent=2), "pow"),
        (lambda x: torch.tanh(x, out=torch.empty_like(x)), "tanh"),
        (lambda x: torch.erfc(x), "erfc"),
    ],
)
def test_arguments_that_no_rule_knows_are_refused(forward, name):
    graph = read_graph(chain(forward), torch.randn(5, 4))
    assert graph["a"].reason == f"its channels enter {name}, which has no exact rule"


def test_a_rule_is_told_what_it_has_to_know():
    seen = []

    def rule(notes: object, call: object, out: Tensor, input: Tensor) -> Tensor | None:
        seen.append((call.name, call.func, call.shapes[id(input)], out.shape, notes.labels(input).tolist()))
        return notes.labels(input)

    model = chain(torch.tanh)
    notes = Tracer(model, RULES | {"tanh": Rule(rule, ("input",))}).run(torch.randn(5, 4))
    assert seen == [("tanh", torch.tanh, (5, 3), (5, 3), [[0, 1, 2]])]
    assert [str(layer) for layer in notes.layers] == ["a", "b"]
    assert notes.samples == 5


def test_channels_in_an_argument_that_a_rule_does_not_read_are_refused():
    graph = read_graph(
        Net(
            lambda m, x: m.b(torch.clamp(m.c(x), min=m.a(x))),
            a=nn.Linear(4, 3),
            b=nn.Linear(3, 2),
            c=nn.Linear(4, 3),
        ),
        torch.randn(5, 4),
    )
    assert {group.name: group.reason for group in graph} == {
        "c": "",
        "a": "clamp takes it as an option",
        "b": "it is an output of the network",
    }


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x.std(dim=-1, keepdim=True) + x,
        lambda x: torch.std(x, False) + x,
        lambda x: x.sum(dim=[]) + x,
        lambda x: x[0, 0].amax(-1) + x,
        lambda x: torch.softmax(x[0, 0], 0) + x,
        lambda x: torch.nn.functional.linear(x, torch.ones(3))[:, None] + x,
        lambda x: x.reshape(-1)[:15].reshape(5, 3) + x,
        lambda x: x.T.T.contiguous().reshape(15, 1)[:5] + x,
        lambda x: torch.cat([x, torch.ones(0)], 0),
        lambda x: x.view(torch.int32).view(torch.float32),
    ],
)
def test_unusual_arguments_refuse_and_do_not_fail(forward):
    assert not read_graph(chain(forward), torch.randn(5, 4))["a"].splittable
