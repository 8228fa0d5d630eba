import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Role
from nni_s3d.growth.modules import evaluation_mode
from tests import reference
from tests.cases import BY_NAME, all_cases, measured


def Number(*shape: int) -> nn.Parameter:  # noqa: N802
    """Return a parameter that no layer owns."""
    return nn.Parameter(torch.rand(*shape))


class Net(nn.Module):
    """A forward pass written in one line, over the modules that are given by name."""

    def __init__(self, forward: Callable[..., object], **modules: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, module in modules.items():
            setattr(self, name, module)
        self._forward = forward

    def forward(self, *inputs: Tensor) -> object:
        return self._forward(self, *inputs)


def linears(*sizes: tuple[int, int]) -> dict[str, nn.Module]:
    """Return linear layers a, b, c, ..."""
    return {name: nn.Linear(*size) for name, size in zip("abcdef", sizes, strict=False)}


def traced(forward: Callable[..., object], *inputs: Tensor, **modules: nn.Module) -> s3d.ChannelGraph:
    return s3d.trace(Net(forward, **modules).double(), inputs)


def sample(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def check_split(model: nn.Module, inputs: Tensor, graph: s3d.ChannelGraph, copies: int = 3) -> None:
    """Split every neuron without moving it and expect the same function, and the graph that a trace of it gives."""
    number = {group.name: torch.full((group.width,), copies) for group in graph.splittable_groups}
    result = s3d.split(model.eval(), graph, s3d.plan_from_copies(graph, number, c=2.5), epsilon=0)
    torch.testing.assert_close(result.model(inputs), model(inputs), rtol=0, atol=1e-10)
    assert s3d.trace(result.model, inputs).widths == result.graph.widths == result.widths


EXPECTED = {  # name, width, producers, followers, consumers of every splittable group
    "mlp-tanh": [("0", 5, "0", "", "2"), ("2", 4, "2", "", "4")],
    "mlp-one-neuron": [("0", 1, "0", "", "2"), ("2", 1, "2", "", "4")],
    "conv-bn-silu": [("0", 4, "0", "1", "3"), ("3", 3, "3", "4", "8")],
    "separable-relu6": [("0", 3, "0", "1 3 4", "6"), ("6", 4, "6", "7 9 10", "12"), ("12", 3, "12", "", "16")],
    "pool-flatten-gelu": [("0", 3, "0", "", "4"), ("4", 5, "4", "", "7")],
    "residual-relu": [
        ("stem", 4, "stem inner expand", "norm", "inner reduce head"),
        ("reduce", 3, "reduce", "reduce_norm", "expand"),
    ],
    "softmax-between": [("0", 5, "0", "", "2"), ("4", 3, "4", "", "6")],
    "one-gate": [("main", 4, "main", "", "head"), ("hidden", 3, "hidden", "", "gate")],
    "gated-tanh": [("conv", 3, "conv excite", "", "squeeze read"), ("squeeze", 2, "squeeze", "", "excite")],
    "functional-relu": [(f"layers.{i}", w, f"layers.{i}", "", f"layers.{i + 1}") for i, w in enumerate((5, 3, 4))],
    "prelu": [("conv", 3, "conv", "each", "hidden"), ("hidden", 4, "hidden", "", "head")],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_groups(name):
    graph = measured(BY_NAME[name]).graph
    found = [
        (g.name, g.width, *(" ".join(map(str, layers)) for layers in (g.producers, g.followers, g.consumers)))
        for g in graph.splittable_groups
    ]
    assert found == EXPECTED[name]
    assert graph.widths == {name: width for name, width, *_ in EXPECTED[name]}


@all_cases
def test_the_last_layer_is_refused_as_an_output(case):
    last = [group for group in measured(case).graph if not group.splittable][-1]
    assert last.reason == "it is an output of the network"
    assert last.width == case.classes


@all_cases
def test_channels_are_numbered_group_by_group(case):
    graph = measured(case).graph
    channels = torch.arange(graph.num_channels)
    assert torch.cat([channels[group.channels] for group in graph]).tolist() == channels.tolist()
    for axis in graph.axes():
        assert axis.slots.min() >= -1
        assert axis.slots.max() < graph.num_channels
        tensor = dict((*measured(case).model.named_parameters(), *measured(case).model.named_buffers()))[axis.tensor]
        assert axis.slots.numel() == tensor.shape[axis.dim]


def test_axes_of_a_flattened_convolution():
    graph = measured(BY_NAME["pool-flatten-gelu"]).graph
    (columns,) = (a for a in graph["0"].consumers[0].axes if a.role is Role.COLUMN)
    assert columns.tensor == "4.weight"
    assert columns.dim == 1
    assert columns.slots.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_axes_of_a_depthwise_layer_with_two_filters_each():
    graph = measured(BY_NAME["separable-silu"]).graph
    follower = next(layer for layer in graph["6"].followers if layer.name == "9")
    first = graph["6"].first
    assert [a.slots.tolist() for a in follower.axes] == [[first + i // 2 for i in range(8)]] * 2
    assert {a.role for a in follower.axes} == {Role.FOLLOW}


@all_cases
def test_trace_leaves_the_model_as_it_was(case):
    model = case.model()
    for index, module in enumerate(model.modules()):
        module.training = index % 2 == 0
    with reference.untouched(model):
        s3d.trace(model, case.inputs())


@all_cases
def test_trace_does_not_depend_on_the_number_of_samples(case):
    one, many = (s3d.trace(case.model(), case.inputs(n)) for n in (1, 6))
    assert str(one) == str(many)
    assert s3d.count(one) == s3d.count(many)


def test_trace_leaves_the_model_as_it_was_when_it_fails():
    model = BY_NAME["conv-bn-relu"].model().train()
    with reference.untouched(model), pytest.raises(s3d.ModelError, match="0 fails on the example inputs"):
        s3d.trace(model, torch.zeros(2, 5, 6, 6, dtype=torch.float64))


def test_the_graph_is_a_collection_of_groups():
    graph = measured(BY_NAME["residual-silu"]).graph
    assert len(graph) == 3
    assert [group.name for group in graph] == ["stem", "reduce", "head"]
    assert graph["reduce"] is graph.groups[1]
    with pytest.raises(s3d.ModelError, match="channel group 'conv9': expected one of stem, reduce, head"):
        graph["conv9"]


def test_the_graph_prints_as_a_table():
    lines = str(measured(BY_NAME["residual-silu"]).graph).splitlines()
    assert lines[0].split() == ["group", "width", "followers", "consumers", "splittable"]
    assert lines[1].split("  ")[0] == "stem + inner + expand"
    assert lines[2].split() == ["reduce", "3", "reduce_norm", "expand", "yes"]
    assert lines[3].endswith("no: it is an output of the network")


# -- what is refused, and why ------------------------------------------------------------------------------------

REFUSED = {
    "an unknown function": (
        lambda m, x: m.b(torch.softmax(m.a(x), -1)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "softmax mixes its channels",
    ),
    "layer norm": (
        lambda m, x: m.b(m.norm(m.a(x))),
        linears((4, 3), (3, 2)) | {"norm": nn.LayerNorm(3)},
        (5, 4),
        "layer_norm mixes its channels",
    ),
    "a matrix product": (
        lambda m, x: m.b(m.a(x) @ torch.ones(3, 3, dtype=x.dtype)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "its channels enter matmul, which has no exact rule",
    ),
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
    "a layer called twice": (
        lambda m, x: m.c(m.b(torch.tanh(m.b(torch.tanh(m.a(x)))))),
        linears((4, 3), (3, 3), (3, 2)),
        (5, 4),
        "the parameter b.weight is used more than once",
    ),
    "a parameter of two layers": (
        lambda m, x: m.d(m.c(torch.tanh(m.b(torch.tanh(m.a(x)))))),
        linears((4, 3), (3, 3), (3, 3), (3, 2)),
        (5, 4),
        "the parameter b.weight is used more than once",
    ),
    "a weight that is computed": (
        lambda m, x: m.b(F.linear(m.a(x).tanh(), m.c.weight.tanh())),
        linears((4, 3), (3, 2), (3, 3)),
        (5, 4),
        "its channels enter a linear whose weight is not a parameter of the model",
    ),
    "a sum with a layer whose weight is computed": (
        lambda m, x: m.b(m.a(x) + F.linear(x, 2 * m.c.weight)),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        "the weight of its linear is not a parameter of the model",
    ),
    "a slope that is computed": (
        lambda m, x: m.b(F.prelu(m.a(x), 2 * m.act.weight)),
        linears((4, 3), (3, 2)) | {"act": nn.PReLU(3)},
        (5, 4),
        "its channels enter a prelu whose tensors are not the model's own",
    ),
    "a weight that is also used by itself": (
        lambda m, x: m.c(m.b(m.a(x).tanh()).tanh()) + m.a.weight.mean(),
        linears((4, 3), (3, 3), (3, 2)),
        (5, 4),
        "the parameter a.weight also enters mean",
    ),
    "transposed weights": (
        lambda m, x: F.linear(F.linear(m.b(m.a(x).sigmoid()), m.b.weight.t()).sigmoid(), m.a.weight.t()),
        linears((4, 3), (3, 2)),
        (5, 4),
        "the parameter a.weight also enters t",
    ),
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
    "PReLU along another dimension": (
        lambda m, x: m.b(m.act(m.a(x))),
        linears((4, 3), (3, 2)) | {"act": nn.PReLU(6)},
        (5, 6, 4),
        "its PReLU runs over another dimension than its channels",
    ),
    "a depthwise convolution over positions": (
        lambda m, x: m.b(m.depthwise(m.a(x))),
        linears((4, 3), (2, 2)) | {"depthwise": nn.Conv1d(6, 6, 2, groups=6)},
        (5, 6, 4),
        "depthwise.weight is depthwise over something else than channels",
    ),
    "a consumer along another dimension": (
        lambda m, x: m.b(m.a(x)).sum(1),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(5, 2)},
        (5, 2, 6),
        "b.weight reads it along another dimension than its channels",
    ),
    "one channel read along another dimension": (
        lambda m, x: m.b(m.a(x)).sum(1),
        {"a": nn.Conv1d(2, 1, 2), "b": nn.Linear(5, 2)},
        (5, 2, 6),
        "b.weight reads it along another dimension than its channels",
    ),
    "a mean over channels": (
        lambda m, x: m.b(m.a(x).mean(1)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(5, 2)},
        (5, 2, 6),
        "mean reduces over its channels",
    ),
    "a mean over one channel": (
        lambda m, x: m.b(m.a(x).mean(1)),
        {"a": nn.Conv1d(2, 1, 2), "b": nn.Linear(5, 2)},
        (5, 2, 6),
        "mean reduces over its channels",
    ),
    "a sum over everything": (
        lambda m, x: m.b(x) + m.a(x).sum(),
        linears((4, 3), (4, 2)),
        (5, 4),
        "sum reduces over its channels",
    ),
    "pooling across channels": (
        lambda m, x: m.b(F.max_pool1d(m.a(x), 3)),
        linears((4, 6), (2, 2)),
        (5, 4),
        "max_pool1d pools across its channels",
    ),
    "a sum with the inputs": (
        lambda m, x: m.b(m.a(x) + x),
        linears((4, 4), (4, 2)),
        (5, 4),
        "add joins it with a tensor that does not grow with it",
    ),
    "a product of each channel with each": (
        lambda m, x: m.c((m.a(x).unsqueeze(2) * m.b(x).unsqueeze(1)).flatten(1)),
        linears((4, 3), (4, 3), (9, 2)),
        (5, 4),
        "mul stretches it over other channels",
    ),
    "nothing reads it": (
        lambda m, x: m.b(x) + 0 * _dropped(m.a(x)),
        linears((4, 3), (4, 2)),
        (5, 4),
        "nothing reads it linearly",
    ),
}


def _written(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x


def _rebuilt(x: Tensor) -> Tensor:
    return torch.tensor(x.tolist(), dtype=x.dtype)


def _tie(model: Net) -> Net:
    model.c.weight = model.b.weight
    return model


def _dropped(_: Tensor) -> int:
    return 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    forward, modules, shape, reason = REFUSED[name]
    model = Net(forward, **modules)
    if name == "a parameter of two layers":
        _tie(model)
    graph = s3d.trace(model.double(), sample(*shape))
    group = graph["a"]
    assert not group.splittable
    assert re.fullmatch(reason, group.reason)
    with pytest.raises(s3d.ModelError, match="a: expected a splittable group, but " + reason):
        s3d.plan_from_copies(graph, {"a": torch.ones(group.width)})


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    forward, modules, shape, _ = REFUSED[name]
    before, after = nn.Linear(shape[-1], shape[-1]), nn.Linear(shape[-1], shape[-1])
    model = Net(lambda m, x: forward(m, m.after(m.before(x).tanh())), **modules, before=before, after=after)
    if name == "a parameter of two layers":
        _tie(model)
    graph = s3d.trace(model.double(), sample(*shape))
    assert "before" in graph.widths
    assert "a" not in graph.widths
    check_split(model, sample(*shape), graph)


# -- what must not be refused ------------------------------------------------------------------------------------

ACCEPTED = {
    "a gate of one channel on many": (
        lambda m, x: m.b((m.a(x) * torch.sigmoid(m.c(x))).mean((2, 3))),
        {"a": nn.Conv2d(2, 3, 1), "b": nn.Linear(3, 2), "c": nn.Conv2d(2, 1, 1)},
        (5, 2, 3, 3),
        {"a": 3},
    ),
    "an affine function of one neuron, one sample": (
        lambda m, x: (lambda h: m.b(h) + m.c(h + 1))(m.a(x).tanh()),
        linears((4, 1), (1, 2), (1, 2)),
        (1, 4),
        {"a": 1},
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
    "a layer over sequences": (
        lambda m, x: m.b(F.silu(m.a(x))).mean(1),
        linears((4, 3), (3, 2)),
        (5, 6, 4),
        {"a": 3},
    ),
    "batch norm without affine parameters": (
        lambda m, x: m.b(m.norm(m.a(x)).tanh()),
        linears((4, 3), (3, 2)) | {"norm": nn.BatchNorm1d(3, affine=False)},
        (5, 4),
        {"a": 3},
    ),
    "products and powers of channels": (
        lambda m, x: m.b((m.a(x) * m.c(x).exp() - m.a.bias.new_tensor(2)) ** 2 / 3),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "keyword arguments": (
        lambda m, x: m.b(F.relu(input=F.linear(input=x, weight=m.a.weight, bias=m.a.bias))),
        linears((4, 3), (3, 2)),
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
    "batch norm of a flattened convolution": (
        lambda m, x: m.b(m.norm(m.a(x).flatten(1)).tanh()),
        {"a": nn.Conv1d(2, 3, 2), "norm": nn.BatchNorm1d(12), "b": nn.Linear(12, 2)},
        (5, 2, 5),
        {"a": 3},
    ),
    "an axis that is called so": (
        lambda m, x: m.b(m.a(x).max(axis=2)[0] + m.c(x).mean(axis=-1)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(3, 2), "c": nn.Conv1d(2, 3, 1)},
        (5, 2, 5),
        {"a": 3},
    ),
    "factors of the positions": (
        lambda m, x: m.b((m.a(x) * x[:, :1, 1:]).tanh() + m.position).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1)} | {"position": Number(1, 1, 4)},
        (5, 2, 5),
        {"a": 3},
    ),
    "dimensions that come and go in place": (
        lambda m, x: m.b((m.a(x) * torch.sigmoid(m.c(x.mean(2))).unsqueeze_(2)).mean(2)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(3, 2), "c": nn.Linear(2, 3)},
        (5, 2, 5),
        {"a": 3},
    ),
    "dropout in evaluation mode": (
        lambda m, x: m.b(m.drop(m.a(x))),
        linears((4, 3), (3, 2)) | {"drop": nn.Dropout(0.9)},
        (5, 4),
        {"a": 3},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    forward, modules, shape, widths = ACCEPTED[name]
    model = Net(forward, **modules).double().eval()
    graph = s3d.trace(model, sample(*shape))
    assert graph.widths == widths
    check_split(model, sample(*shape), graph, copies)


def _halved(x: Tensor) -> Tensor:
    x[:, :2].mul_(3.0)
    return x


REFUSED |= {
    "a bound that has channels": (
        lambda m, x: m.b(m.c(x).clamp(min=m.a(x))),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        "clamp takes it as an option",
    ),
    "a view that is changed in place": (
        lambda m, x: m.b(_halved(m.a(x)).tanh()),
        linears((4, 4), (4, 2)),
        (5, 4),
        "mul changes it in place, and a view of it",
    ),
    "batch norm that always takes the statistics of the batch": (
        lambda m, x: m.b(F.batch_norm(m.a(x), m.norm.running_mean, m.norm.running_var, training=True)),
        linears((4, 3), (3, 2)) | {"norm": nn.BatchNorm1d(3)},
        (5, 4),
        "its batch norm takes the statistics of the batch",
    ),
    "what is detached": (
        lambda m, x: m.b(m.a(x).detach()),
        linears((4, 3), (3, 2)),
        (5, 4),
        "its channels enter detach, which has no exact rule",
    ),
    "channels that are normalised": (
        lambda m, x: m.b(F.normalize(m.a(x), dim=-1)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "normalize mixes its channels",
    ),
    "a slice of an uneven part": (
        lambda m, x: m.b((h := m.a(x))[:, :2].tanh()) + m.c(h[:, 2:].tanh()),
        linears((4, 5), (2, 2), (3, 2)),
        (5, 4),
        "a: copies of its neurons meet other channels|the model fails when it grows: .*",
    ),
}


PRETENDERS = {
    "a reshape to sizes written as numbers": (
        lambda m, x: m.b(m.a(x).view(-1, 12)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(12, 2)},
        (5, 2, 5),
        "the model fails when it grows: .*",
    ),
    "arithmetic with a width": (
        lambda m, x: m.b((h := m.a(x)) / h.shape[1]),
        linears((4, 3), (3, 2)),
        (5, 4),
        "the model computes something else when it grows",
    ),
    "a number of channels that is checked": (
        lambda m, x: m.b(_checked(m.a(x))),
        linears((4, 3), (3, 2)),
        (5, 4),
        "the model fails when it grows: three are wanted",
    ),
    "a slice to a number": (
        lambda m, x: m.b((h := m.a(x))[:, :2]) + m.c(h[:, 2:]),
        linears((4, 4), (2, 2), (2, 2)),
        (5, 4),
        "a: copies of its neurons meet other channels|copies: expected .*|the model fails when it grows.*",
    ),
}


def _checked(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        raise ValueError("three are wanted")
    return x


@pytest.mark.parametrize("name", PRETENDERS)
def test_what_no_rule_sees_is_found_by_trying(name):
    forward, modules, shape, reason = PRETENDERS[name]
    before = nn.Linear(shape[-1], shape[-1]), nn.Linear(shape[-1], shape[-1])
    model = Net(lambda m, x: forward(m, m.after(m.before(x).tanh())), **modules, before=before[0], after=before[1])
    graph = s3d.trace(model.double(), sample(*shape))
    assert re.fullmatch(reason, graph["a"].reason), graph["a"].reason
    assert "before" in graph.widths
    check_split(model, sample(*shape), graph)


def test_a_model_that_draws_random_numbers_is_not_refused_for_it():
    model = Net(lambda m, x: m.b(F.dropout(m.a(x), 0.5, training=True)), **linears((4, 3), (3, 2))).double()
    assert s3d.trace(model, sample(5, 4)).widths == {"a": 3}


def test_the_root_module_may_own_several_weights():
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(sample(3, 4)), nn.Parameter(sample(2, 3))
            self.third = nn.Parameter(sample(1, 2))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.linear(F.linear(x, self.first).tanh(), self.second).tanh(), self.third)

    graph = s3d.trace(Raw(), sample(5, 4))
    assert graph.widths == {"first": 3, "second": 2}
    check_split(Raw(), sample(5, 4), graph)


@pytest.mark.parametrize("inputs", ["tuple", "list", "dict"])
def test_models_with_several_inputs(inputs):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"out": self.c(torch.tanh(self.a(x) + self.b(y)))}

    x, y = sample(5, 4), sample(5, 2)
    graph = s3d.trace(Two().double(), {"tuple": (x, y), "list": [x, y], "dict": {"y": y, "x": x}}[inputs])
    assert graph.widths == {"a": 3}
    assert [str(p) for p in graph["a"].producers] == ["a", "b"]


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


def test_evaluation_mode_restores_every_mode_after_an_error():
    model = BY_NAME["conv-bn-relu"].model()
    model[1].train()

    def fail() -> None:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model] == [index == 1 for index in range(len(model))]


def test_the_module_that_fails_is_named():
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(2, 3)))
    with pytest.raises(s3d.ModelError, match=r"1\.1 fails on the example inputs: mat1 and mat2"):
        s3d.trace(model, torch.zeros(5, 4))
    with pytest.raises(s3d.ModelError, match=r"Net fails on the example inputs: 'no'"):
        s3d.trace(Net(_failing, a=nn.Linear(4, 3)), torch.zeros(5, 4))


def _failing(*_: object) -> None:
    raise KeyError("no")


@dataclass
class Outputs:
    logits: Tensor
    features: Tensor


def test_outputs_in_a_dataclass_are_outputs():
    graph = traced(lambda m, x: Outputs(m.b(h := m.a(x).tanh()), h), sample(5, 4), **linears((4, 3), (3, 2)))
    assert graph["a"].reason == "it is an output of the network"
    with pytest.raises(s3d.ModelError, match="model: expected tensors among its outputs, got float"):
        traced(lambda m, x: float(m.a(x).sum()), sample(5, 4), **linears((4, 3)))


def test_a_branch_that_starts_at_zero_hides_nothing():
    modules = linears((4, 3), (3, 2), (4, 2)) | {"gate": nn.Parameter(torch.zeros(1))}
    graph = traced(lambda m, x: m.c(x) + m.gate * m.b((h := m.a(x)) / h.shape[1]), sample(5, 4), **modules)
    assert graph["a"].reason == "the model computes something else when it grows"


def test_infinite_scores_hide_nothing():
    def forward(m: Net, x: Tensor) -> Tensor:
        scores = m.b((h := m.a(x)) / h.shape[1])
        return torch.cat([scores, torch.full_like(scores[:, :1], -torch.inf)], 1)

    graph = traced(forward, sample(5, 4), **linears((4, 3), (3, 2)))
    assert graph["a"].reason == "the model computes something else when it grows"


def test_buffers_that_count_and_random_numbers_are_left_as_they_were():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            torch.randn(3)
            return self.b(self.a(x).tanh())

    model = Counts().double()
    with reference.untouched(model):
        graph = s3d.trace(model, sample(5, 4))
        s3d.split(model, graph, s3d.plan_from_copies(graph, {"a": torch.tensor([2, 1, 1])}))
    assert graph.widths == {"a": 3}


def test_a_model_that_keeps_its_last_result_can_be_split():
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.hidden = self.a(x).tanh()
            return self.b(self.hidden)

    model = Keeps().double()
    graph = s3d.trace(model, sample(5, 4))
    model(sample(5, 4)).sum().backward()
    check_split(model, sample(5, 4), graph)


def test_lazy_layers_and_empty_batches_are_refused():
    with pytest.raises(s3d.ModelError, match=r"0\.weight: expected a parameter with a shape, got a lazy one"):
        s3d.trace(nn.Sequential(nn.LazyLinear(3)), sample(5, 4))
    with pytest.raises(s3d.ModelError, match="example_inputs: expected at least one sample, got none"):
        s3d.trace(nn.Linear(4, 3).double(), sample(0, 4))
