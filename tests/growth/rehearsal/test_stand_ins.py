"""Stand-ins have the value of the grown weight when it is taken, and large networks are rehearsed with them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.calls import calls_and_outputs
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.rehearsal.stand_ins import StandIns
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place
from tests.wide import Net


def large(forward: Callable[..., object]) -> Net:
    torch.manual_seed(0)
    layers = {
        "a": nn.Conv2d(3, 256, 3),
        "b": nn.Conv2d(256, 128, 1),
        "c": nn.Conv2d(128, 128, 3, padding=1, groups=2),
        "d": nn.Linear(128, 20000),
        "e": nn.Linear(20000, 2),
    }
    return Net(forward, **layers).eval()


def _plain(m: nn.Module, x: Tensor) -> Tensor:
    return m.e(m.d(m.c(m.b(m.a(x).tanh()).tanh()).mean((2, 3))).tanh())


def _twice(m: nn.Module, x: Tensor) -> Tensor:
    return _plain(m, x) + 0 * m.d.weight.mean()


def stand_ins(model: nn.Module, x: Tensor) -> tuple[StandIns, dict[str, Tensor]]:
    """Return the stand-ins of a growth of a model, and the values that they stand for."""
    graph, before = read_graph(model, x), {n: p.detach() for n, p in model.named_parameters()}
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    for group in graph.splittable_groups:
        copies[group.first] = copies[group.first + group.width // 2] = 3
    weights = torch.linspace(-1, 2, int(copies.sum()), dtype=torch.float64)
    growth = AxisGrowth(graph, NewChannels(copies, weights, torch.ones_like(weights)), slots_in_place(graph, copies))
    return StandIns(growth, before, calls_and_outputs(model, x)[0]), growth.values(before)


@torch.no_grad()
@pytest.mark.parametrize(("forward", "names"), [(_plain, "b c d e"), (_twice, "b c")])
def test_large_weights_that_one_linear_layer_takes_have_stand_ins(forward, names):
    model, x = large(forward), torch.randn(2, 3, 6, 6)
    substitutes, values = stand_ins(model, x)
    assert list(substitutes.tensors) == [f"{name}.weight" for name in names.split()]  # no bias beside its weight
    assert len({tensor.untyped_storage().data_ptr() for tensor in substitutes.tensors.values()}) == 1
    for name, tensor in substitutes.tensors.items():
        substitutes.write(name)
        assert torch.equal(tensor, values[name])
    substitutes.write("a.bias")  # which has none


@torch.no_grad()
def test_small_networks_have_none():
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(3, 4)
    assert stand_ins(model, x)[0].tensors == {}


def _times_its_width(m: nn.Module, x: Tensor) -> Tensor:
    h = m.d(m.c(m.b(m.a(x).tanh()).tanh()).mean((2, 3)))
    return m.e(h.tanh() * h.shape[1])


def _normalised_when_wide(m: nn.Module, x: Tensor) -> Tensor:
    h = m.d(m.c(m.b(m.a(x).tanh()).tanh()).mean((2, 3)))
    return m.e(F.normalize(h) if h.shape[1] > 20000 else F.softmax(h, 1).log().exp())


@pytest.mark.parametrize(
    ("forward", "refused"),
    [
        (_plain, {"e"}),
        (_twice, {"c", "d", "e"}),
        (_times_its_width, {"d", "e"}),
        (_normalised_when_wide, {"d", "e"}),
    ],
)
def test_large_networks_are_rehearsed(forward, refused):
    graph = s3d.trace(large(forward), torch.randn(2, 3, 6, 6))
    assert {group.name for group in graph if not group.splittable} == refused
