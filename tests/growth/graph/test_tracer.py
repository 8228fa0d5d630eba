"""The run itself: what is asked of a rule, and which errors are whose."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.graph.rule_table import Rule
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.tracer import Tracer
from tests.cases import BY_NAME
from tests.wide import Net, check_refused, check_rest_grows, expect_reason, linears, sample


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
        (lambda x: torch.special.i0e(x), "i0e"),
    ],
)
def test_arguments_that_no_rule_knows_are_refused(forward, name):
    graph = read_graph(chain(forward), torch.randn(5, 4))
    expect_reason(graph["a"], f"its channels enter {name}, which has no exact rule")


def test_a_rule_is_told_what_it_has_to_know():
    seen = []

    def rule(notes: object, call: object, out: Tensor, input: Tensor) -> Tensor | None:
        seen.append((call.name, call.func, call.shapes[id(input)], out.shape, notes.labels(input).tolist()))
        return notes.labels(input)

    model = chain(torch.tanh)
    notes = Tracer(model, RULES | {"tanh": Rule(rule, ("input",))}).run(torch.randn(5, 4))
    assert seen == [("tanh", torch.tanh, (5, 3), (5, 3), [[0, 1, 2]])]
    assert [str(layer) for layer in notes.layers] == ["a", "b"]
    assert [operation.repeats for operation in notes.operations] == [1, 1]  # for each of five samples


def test_sparse_tensors_are_followed():
    adjacency = torch.eye(5).to_sparse()
    model = Net(lambda m, x: m.b(torch.sparse.mm(adjacency, m.c(m.a(x).tanh()))), **linears((4, 3), (3, 2), (3, 3)))
    assert read_graph(model, torch.randn(5, 4)).widths == {"a": 3}


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
    expect_reason(graph["a"], "clamp takes it as an option")
    assert graph.widths == {"c": 3}


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x.std(dim=-1, keepdim=True) + x,
        lambda x: torch.std(x, True) + x,
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


def _written(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x


def _rebuilt(x: Tensor) -> Tensor:
    return torch.tensor(x.tolist(), dtype=x.dtype)


def _halved(x: Tensor) -> Tensor:
    x[:, :2].mul_(3.0)
    return x


REFUSED = {
    "writing to one channel": (
        lambda m, x: m.b(_written(m.a(x))),
        linears((4, 3), (3, 2)),
        (5, 4),
        "its channels enter setitem, which has no exact rule",
    ),
    "reading values": (
        lambda m, x: m.b(_rebuilt(m.a(x))),
        linears((4, 3), (3, 2)),
        (5, 4),
        "its channels enter tolist, which has no exact rule",
    ),
    "a view that is changed in place": (
        lambda m, x: m.b(_halved(m.a(x)).tanh()),
        linears((4, 4), (4, 2)),
        (5, 4),
        "mul changes it in place, and a view of it is read afterwards",
    ),
    "what is detached": (
        lambda m, x: m.b(m.a(x).detach()),
        linears((4, 3), (3, 2)),
        (5, 4),
        "its channels enter detach, which has no exact rule",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


@pytest.mark.parametrize("inputs", [(), {"n": 3}, torch.tensor(1.0)])
def test_example_inputs_without_samples_are_refused(inputs):
    with pytest.raises(s3d.ModelError, match="example_inputs: expected at least one tensor with a batch dimension"):
        s3d.trace(nn.Linear(1, 1), inputs)


def test_devices_that_differ_are_refused():
    model = BY_NAME["mlp-relu"].model()
    with pytest.raises(s3d.ModelError, match="example_inputs: expected tensors on cpu, where the model is, got meta"):
        s3d.trace(model, torch.zeros(2, 4, device="meta"))
    model[2].to("meta")
    with pytest.raises(s3d.ModelError, match=r"2.weight: expected it on cpu, where 0.weight is, got meta"):
        s3d.trace(model, torch.zeros(2, 4))


def test_the_module_that_fails_is_named():
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(2, 3)))
    with pytest.raises(s3d.ModelError, match=r"1\.1 fails on the example inputs: mat1 and mat2"):
        s3d.trace(model, torch.zeros(5, 4))
    with pytest.raises(s3d.ModelError, match=r"Net fails on the example inputs: 'no'"):
        s3d.trace(Net(_failing, a=nn.Linear(4, 3)), torch.zeros(5, 4))


def _failing(*_: object) -> None:
    raise KeyError("no")


def test_lazy_layers_and_empty_batches_are_refused():
    with pytest.raises(s3d.ModelError, match=r"0\.weight: expected a parameter with a shape, got a lazy one"):
        s3d.trace(nn.Sequential(nn.LazyLinear(3)), sample(5, 4))
    with pytest.raises(s3d.ModelError, match="example_inputs: expected at least one sample, got none"):
        s3d.trace(nn.Linear(4, 3).double(), sample(0, 4))


def outputs_of(forward: Callable[..., object], *inputs: Tensor, **modules: nn.Module) -> s3d.ChannelGraph:
    return read_graph(Net(forward, **modules).double(), inputs)


@dataclass
class Outputs:
    logits: Tensor
    features: Tensor


def test_outputs_in_a_dataclass_are_outputs():
    graph = outputs_of(lambda m, x: Outputs(m.b(h := m.a(x).tanh()), h), sample(5, 4), **linears((4, 3), (3, 2)))
    assert graph["a"].reason == "it is an output of the network"
    with pytest.raises(s3d.ModelError, match="model: expected tensors among its outputs, got float"):
        outputs_of(lambda m, x: float(m.a(x).sum()), sample(5, 4), **linears((4, 3)))
