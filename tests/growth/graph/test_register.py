"""What users register grows: the same graph, costs, splitting matrices and splits as of PyTorch's own layers."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Net

PAGE = (Path(__file__).parents[3] / "docs" / "register.md").read_text()


class Affine(nn.Module):
    """A learned scale and shift of every channel, along the last dimension or another one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = channels
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)
        self.register_buffer("shift", torch.rand(1, channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nc...,c->nc...", x, self.weight) + self.shift.view(-1, *[1] * (x.dim() - 2))


class Bent(nn.Module):
    """A follower that is no linear function of its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nc,c->nc", x, self.slope).sin() * x


class Mix(nn.Module):
    """A linear layer whose weight is stored the other way round."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 2)
        self.bias = nn.Parameter(torch.randn(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("...i,io->...o", x, self.weight)
        return x if self.bias is None else x + self.bias


class MixPositions(Mix):
    """The same along dimension 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nil,io->nol", x, self.weight)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        sigmoid = torch.sigmoid(x)
        return gradient * (sigmoid * (1 + x * (1 - sigmoid)))


def _gate(x: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    return torch.special.expit(x * slope + shift) * x


def _halves(x: Tensor) -> Tensor:
    return torch.stack([x[..., ::2], x[..., 1::2]], 1).flatten(1, 2)


def _blur(x: Tensor) -> Tensor:
    return (x[:, :, 1:] + x[:, :, :-1]).square()


gate = s3d.register_function(_gate)
halves = s3d.register_function(_halves, "reshape")
blur = s3d.register_function(_blur, "pool")
s3d.register_function(Swish, "elementwise")
s3d.register_function(torch.erfc, "elementwise")
s3d.register_layer(Affine, entries={"weight": 0, "shift": 1}, sizes={"num_features": ("weight", 0)})
s3d.register_layer(Bent, entries={"slope": 0})
s3d.register_layer(
    Mix,
    rows={"weight": 1, "bias": 0},
    columns={"weight": 0},
    channel_dim=-1,
    sizes={"inputs": ("weight", 0), "outputs": ("weight", 1)},
)


s3d.register_layer(MixPositions, rows={"weight": 1}, columns={"weight": 0})


def sample(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def net(forward: Callable[..., object], **modules: nn.Module) -> nn.Module:
    return Net(forward, **modules).double().eval()


def linears() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": nn.Linear(4, 5), "b": nn.Linear(5, 3)}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "follower": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), Affine(3), nn.SiLU(), nn.Flatten(), nn.Linear(27, 2)).double(),
        (6, 2, 5, 5),
        {"0": 3},
    ),
    "curved follower": (lambda: net(lambda m, x: m.b(m.bent(m.a(x))), bent=Bent(5), **linears()), (6, 4), {"a": 5}),
    "linear layers": (
        lambda: nn.Sequential(Mix(4, 5), nn.Tanh(), Mix(5, 6, bias=False), nn.Tanh(), Mix(6, 3)).double(),
        (6, 4),
        {"0": 5, "2": 6},
    ),
    "scale of the positions, as many as rows of the weight": (
        lambda: net(
            lambda m, x: m.b(torch.tanh(m.a(x) * m.scale).flatten(1)),
            a=MixPositions(4, 3, bias=False),
            scale=nn.Parameter(torch.rand(4)),
            b=nn.Linear(12, 2),
        ),
        (6, 4, 4),
        {"a": 3},
    ),
    "autograd function": (lambda: net(lambda m, x: m.b(Swish.apply(m.a(x))), **linears()), (6, 4), {"a": 5}),
    "function with parameters": (
        lambda: net(
            lambda m, x: m.b(gate(m.a(x), m.slope, m.shift)),
            slope=nn.Parameter(torch.rand(5)),
            shift=nn.Parameter(torch.rand(5)),
            **linears(),
        ),
        (6, 4),
        {"a": 5},
    ),
    "function of PyTorch": (lambda: net(lambda m, x: m.b(torch.erfc(m.a(x))), **linears()), (6, 4), {"a": 5}),
    "reshape": (
        lambda: net(
            lambda m, x: m.b(torch.tanh(halves(m.a(x))).flatten(1)), a=nn.Conv1d(2, 3, 1), b=nn.Linear(3 * 6, 2)
        ),
        (5, 2, 6),
        {"a": 3},
    ),
    "pool": (
        lambda: net(lambda m, x: m.b(blur(m.a(x)).flatten(1)), a=nn.Conv1d(2, 3, 1), b=nn.Linear(3 * 5, 2)),
        (5, 2, 6),
        {"a": 3},
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@every_network
def test_networks_with_registered_parts_can_be_split(name):
    build, shape, widths = NETWORKS[name]
    graph = s3d.trace(build(), sample(*shape))
    assert graph.widths == widths


@every_network
def test_a_split_that_does_not_move_changes_nothing(name):
    build, shape, _ = NETWORKS[name]
    model, inputs = build(), sample(*shape)
    graph = s3d.trace(model, inputs)
    copies = {group.name: torch.arange(group.width) % 3 + 1 for group in graph.splittable_groups}
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=2.5), epsilon=0)
    torch.testing.assert_close(result.model(inputs), model(inputs), rtol=0, atol=1e-10)
    assert s3d.trace(result.model, inputs).widths == result.widths
    assert s3d.count(s3d.trace(result.model, inputs)) == s3d.count(graph, graph.per_channel(copies))


@every_network
@torch.no_grad()
def test_the_predicted_change_of_the_loss_is_the_measured_one(name):
    build, shape, _ = NETWORKS[name]
    torch.manual_seed(1)
    model, inputs = build(), sample(*shape)
    targets = torch.randint(2, (len(inputs),), generator=torch.Generator().manual_seed(4))
    graph = s3d.trace(model, inputs)
    op = s3d.SplittingOperator(model, graph, [(inputs, targets)], F.cross_entropy)
    copies = {group.name: torch.full((group.width,), 2) for group in graph.splittable_groups}
    plan = s3d.plan_from_copies(graph, copies, s3d.spectrum(op, "exact"), c=3.0)
    epsilon = 1e-3
    grown = s3d.split(model, graph, plan, epsilon).model
    change = float(F.cross_entropy(grown(inputs), targets) - F.cross_entropy(model(inputs), targets))
    assert plan.gain < 0
    assert change == pytest.approx(epsilon**2 / 2 * plan.gain, rel=2e-2)


TWINS = {
    "linear layers": nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)),
    "autograd function": nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 3)),
}


@pytest.mark.parametrize("name", TWINS)
def test_splitting_matrices_and_costs_are_those_of_the_layers_of_pytorch(name):
    build, shape, _ = NETWORKS[name]
    model, twin = build(), copy.deepcopy(TWINS[name]).double()
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.data = own.data.mT.clone() if own.shape != other.shape else own.data.clone()
        if name == "linear layers" and own.dim() == 2:
            other.data = own.data.mT.clone()
    batch = sample(*shape), torch.tensor([0, 1, 2, 0, 1, 2])
    found = []
    for one in (model, twin):
        graph = s3d.trace(one, batch[0])
        op = s3d.SplittingOperator(one, graph, [batch], F.cross_entropy)
        found.append(
            [s3d.count(graph).params, s3d.count(graph).macs, [op.dense(g.name) for g in graph.splittable_groups]]
        )
    torch.testing.assert_close(found[0], found[1])


def test_sizes_are_set_when_a_layer_has_grown():
    model = NETWORKS["follower"][0]()
    graph = s3d.trace(model, sample(6, 2, 5, 5))
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.tensor([2, 3, 1])})).model
    assert (grown[1].num_features, grown[1].weight.shape, grown[1].shift.shape) == (6, (6,), (1, 6))
    assert model[1].num_features == 3
    mixed = NETWORKS["linear layers"][0]()
    graph = s3d.trace(mixed, sample(6, 4))
    grown = s3d.split(mixed, graph, s3d.plan_from_copies(graph, {"0": torch.full((5,), 2)})).model
    assert [(grown[i].inputs, grown[i].outputs) for i in (0, 2)] == [(4, 10), (10, 6)]


def test_registered_layers_are_as_before_outside_of_a_trace():
    calls = []
    layer = Affine(3)
    layer.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(layer(x), x * layer.weight[:, None] + layer.shift[..., None])
    s3d.trace(nn.Sequential(nn.Conv1d(2, 3, 1), layer, nn.Conv1d(3, 2, 1)), torch.randn(2, 2, 4))
    runs = len(calls)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert len(calls) == runs + 2
    x.requires_grad_()
    assert torch.autograd.gradcheck(Swish.apply, x.double()[0, 0].detach().requires_grad_())


@pytest.mark.parametrize(
    "forward, modules, shape, reason",
    [
        (
            lambda m, x: m.b(m.affine(m.a(x))),
            {"a": nn.Linear(4, 5), "affine": Affine(6), "b": nn.Linear(5, 3)},
            (2, 6, 4),
            "its channels do not run along dimension 1 of .*Affine, one for each entry",
        ),
        (
            lambda m, x: m.b(m.a(x)).sum(),
            {"a": nn.Conv1d(2, 3, 1), "b": Mix(6, 2)},
            (2, 2, 6),
            r"b\.weight reads it along another dimension than its channels",
        ),
        (
            lambda m, x: m.b(blur(m.a(x))),
            {"a": nn.Linear(4, 5), "b": nn.Linear(5, 3)},
            (2, 3, 6, 4),
            ".*_blur resizes across its channels",
        ),
    ],
)
def test_channels_along_another_dimension_are_refused(forward, modules, shape, reason):
    graph = s3d.trace(net(forward, **modules), sample(*shape))
    assert re.fullmatch(reason, graph["a"].reason)


def test_what_is_registered_wrongly_is_found_by_trying():
    class Mean(nn.Module):
        """No follower: every channel depends on all of them."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(5))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight + x.mean(1, keepdim=True)

    s3d.register_layer(Mean, entries={"weight": 0})
    graph = s3d.trace(net(lambda m, x: m.b(m.mean(m.a(x))), mean=Mean(), **linears()), sample(6, 4))
    assert graph["a"].reason == "the model computes something else when it grows"


def test_bad_registrations_are_refused():
    with pytest.raises(s3d.ConfigError, match="kind: expected one of elementwise, pool, reshape, got 'linear'"):
        s3d.register_function(torch.erfc, "linear")
    with pytest.raises(s3d.ConfigError, match="func: expected a function without a rule, got relu, an activation of"):
        s3d.register_function(torch.relu)
    with pytest.raises(s3d.ConfigError, match=r"layer: expected a subclass of nn\.Module, got 3"):
        s3d.register_layer(3, entries={"weight": 0})
    for wrong in (
        {},
        {"rows": {"weight": 0}},
        {"entries": {"weight": 0}, "rows": {"weight": 0}, "columns": {"weight": 1}},
        {"rows": {"weight": 0, "bias": 0, "other": 0}, "columns": {"weight": 1}},
        {"rows": {"bias": 0}, "columns": {"weight": 1}},
    ):
        with pytest.raises(s3d.ConfigError, match=r"Affine: expected entries, or columns of a weight and rows of it"):
            s3d.register_layer(Affine, **wrong)


def test_a_second_registration_takes_the_place_of_the_first():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("nc,c->nc", x, self.weight)

    for dim in (1, 0):
        s3d.register_layer(Twice, entries={"weight": 0}, channel_dim=1 - dim)
    model = net(lambda m, x: m.b(m.twice(m.a(x))), twice=Twice(), **linears())
    assert s3d.trace(model, sample(6, 4)).widths == {"a": 5}
    s3d.register_function(torch.erfc, "elementwise")
    s3d.register_function(Swish, "elementwise")
    assert s3d.trace(NETWORKS["autograd function"][0](), sample(6, 4)).widths == {"a": 5}


def test_the_page_runs_as_it_stands(capsys):
    scope: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/register.md", "exec"), scope)
    printed = capsys.readouterr().out.splitlines()
    assert printed == re.findall(r"print\(.*\)  # (.*)", PAGE)
    assert scope["bent"](torch.tensor(-2.0), torch.tensor(0.5)) == -1
