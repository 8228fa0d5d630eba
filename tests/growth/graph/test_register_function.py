"""Functions that users register grow: the same graph, costs, splitting matrices and splits as of PyTorch's own."""

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from tests.growth.graph import registered
from tests.growth.graph.registered import Case, linears, net
from tests.wide import expect_reason, sample


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


NETWORKS: dict[str, Case] = {
    "autograd function": Case(lambda: net(lambda m, x: m.b(Swish.apply(m.a(x))), **linears()), (6, 4), {"a": 5}),
    "function with parameters": Case(
        lambda: net(
            lambda m, x: m.b(gate(m.a(x), m.slope, m.shift)),
            slope=nn.Parameter(torch.rand(5)),
            shift=nn.Parameter(torch.rand(5)),
            **linears(),
        ),
        (6, 4),
        {"a": 5},
    ),
    "function of PyTorch": Case(lambda: net(lambda m, x: m.b(torch.erfc(m.a(x))), **linears()), (6, 4), {"a": 5}),
    "reshape": Case(
        lambda: net(
            lambda m, x: m.b(torch.tanh(halves(m.a(x))).flatten(1)), a=nn.Conv1d(2, 3, 1), b=nn.Linear(3 * 6, 2)
        ),
        (5, 2, 6),
        {"a": 3},
    ),
    "pool": Case(
        lambda: net(lambda m, x: m.b(blur(m.a(x)).flatten(1)), a=nn.Conv1d(2, 3, 1), b=nn.Linear(3 * 5, 2)),
        (5, 2, 6),
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
    twin = nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 3))
    registered.check_twin(NETWORKS["autograd function"], twin)


def test_registered_functions_are_as_before_outside_of_a_trace():
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Swish.apply, x)


def test_a_pool_along_the_channels_is_refused():
    model = net(lambda m, x: m.b(blur(m.a(x))), a=nn.Linear(4, 5), b=nn.Linear(5, 3))
    graph = s3d.trace(model, sample(2, 3, 6, 4))
    expect_reason(graph["a"], ".*_blur resizes across its channels")


def test_bad_registrations_are_refused():
    with pytest.raises(s3d.ConfigError, match="kind: expected one of elementwise, pool, reshape, got 'linear'"):
        s3d.register_function(torch.erfc, "linear")
    with pytest.raises(s3d.ConfigError, match="func: expected a function without a rule, got relu, an activation of"):
        s3d.register_function(torch.relu)


def test_a_second_registration_takes_the_place_of_the_first():
    s3d.register_function(torch.erfc, "elementwise")
    s3d.register_function(Swish, "elementwise")
    assert s3d.trace(NETWORKS["autograd function"].build(), sample(6, 4)).widths == {"a": 5}
