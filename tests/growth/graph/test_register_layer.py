"""Layers that users register grow: the same graph, costs, splitting matrices and splits as of PyTorch's own."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from tests.growth.graph import registered
from tests.growth.graph.registered import Case, linears, net
from tests.wide import expect_reason, sample

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


NETWORKS: dict[str, Case] = {
    "follower": Case(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), Affine(3), nn.SiLU(), nn.Flatten(), nn.Linear(27, 2)).double(),
        (6, 2, 5, 5),
        {"0": 3},
    ),
    "curved follower": Case(lambda: net(lambda m, x: m.b(m.bent(m.a(x))), bent=Bent(5), **linears()), (6, 4), {"a": 5}),
    "linear layers": Case(
        lambda: nn.Sequential(Mix(4, 5), nn.Tanh(), Mix(5, 6, bias=False), nn.Tanh(), Mix(6, 3)).double(),
        (6, 4),
        {"0": 5, "2": 6},
    ),
    "scale of the positions, as many as rows of the weight": Case(
        lambda: net(
            lambda m, x: m.b(torch.tanh(m.a(x) * m.scale).flatten(1)),
            a=MixPositions(4, 3, bias=False),
            scale=nn.Parameter(torch.rand(4)),
            b=nn.Linear(12, 2),
        ),
        (6, 4, 4),
        {"a": 3},
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@every_network
def test_networks_with_registered_parts_can_be_split(name):
    registered.check_widths(NETWORKS[name])


@every_network
def test_a_split_that_does_not_move_changes_nothing(name):
    registered.check_unmoved_split(NETWORKS[name])


@every_network
def test_the_predicted_change_of_the_loss_is_the_measured_one(name):
    registered.check_predicted_change(NETWORKS[name])


def test_splitting_matrices_and_costs_are_those_of_the_layers_of_pytorch():
    layers = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)
    registered.check_twin(NETWORKS["linear layers"], nn.Sequential(*layers), transposed=True)


def test_sizes_are_set_when_a_layer_has_grown():
    model = NETWORKS["follower"].build()
    graph = s3d.trace(model, sample(6, 2, 5, 5))
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.tensor([2, 3, 1])})).model
    assert (grown[1].num_features, grown[1].weight.shape, grown[1].shift.shape) == (6, (6,), (1, 6))
    assert model[1].num_features == 3
    mixed = NETWORKS["linear layers"].build()
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
    ],
)
def test_channels_along_another_dimension_are_refused(forward, modules, shape, reason):
    graph = s3d.trace(net(forward, **modules), sample(*shape))
    expect_reason(graph["a"], reason)


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
    assert graph["a"].reason.startswith("the model computes something else when it grows: ")


def test_bad_registrations_are_refused():
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


def test_the_page_runs_as_it_stands(capsys):
    scope: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/register.md", "exec"), scope)
    printed = capsys.readouterr().out.splitlines()
    for line, said in zip(printed, re.findall(r"print\(.*\)  # (.*)", PAGE), strict=True):
        assert line.startswith(said)
    assert scope["bent"](torch.tensor(-2.0), torch.tensor(0.5)) == -1
