"""Scales and activations, in small networks and alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_s3d.growth.curvature.elementwise_nodes import ChannelScale, Elementwise, derivatives, slope_of
from nni_s3d.growth.curvature.smoothing import ramp_derivatives
from tests.cases import check_operator, matrices_of


class Scaled(nn.Module):
    """A producer's output is scaled before an activation; `twice` reads the output itself, too."""

    def __init__(self, producer: nn.Module, scale, consumer: nn.Module, twice: bool = False) -> None:
        super().__init__()
        self.producer, self.scale, self.consumer, self.twice = producer, scale, consumer, twice

    def forward(self, x):
        u = self.producer(x)
        y = torch.tanh(self.scale(u))
        return self.consumer(y + u if self.twice else y)


def spread(*shape: int) -> torch.Tensor:
    return torch.linspace(0.3, 2, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


PLANE, FLAT = (4, 2, 6, 6), (9, 3)
SCALED = {  # producer, scale, shape of the inputs
    "batch norm": (lambda: nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), PLANE),
    "batch norm without bias": (lambda: nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), PLANE),
    "a number": (lambda: nn.Conv2d(2, 6, 3, padding=1), lambda u: u * 1.7, PLANE),
    "per position": (lambda: nn.Conv2d(2, 6, 3, padding=1), lambda u: u * spread(6, 6), PLANE),
    "per row": (lambda: nn.Conv2d(2, 6, 3, padding=1), lambda u: u * spread(6, 1), PLANE),
    "linear": (lambda: nn.Linear(3, 6), nn.BatchNorm1d(6), FLAT),
}


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", SCALED)
def test_scales_before_an_activation(name, twice):
    torch.manual_seed(0)
    producer, scale, shape = SCALED[name]
    consumer = nn.Conv2d(6, 4, 6) if shape is PLANE else nn.Linear(6, 4)
    if isinstance(scale, nn.Module):
        for tensor in (scale.weight.data, scale.bias.data, scale.running_mean, scale.running_var):
            tensor.copy_(torch.rand(6) + 0.3)
    model = nn.Sequential(Scaled(producer(), scale, consumer, twice), nn.Flatten()).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    check_operator(model, x, torch.randint(4, (shape[0],)))


def test_a_scale_behind_a_transposed_convolution():
    torch.manual_seed(0)
    plain, transposed = nn.Conv2d(6, 6, 1), nn.ConvTranspose2d(6, 6, 1)
    transposed.weight.data, transposed.bias.data = plain.weight.data.transpose(0, 1), plain.bias.data
    norm, consumer = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 6)
    norm.weight.data = torch.rand(6) + 0.3
    models = [nn.Sequential(Scaled(p, norm, consumer), nn.Flatten()).double().eval() for p in (plain, transposed)]
    batch = torch.randn(4, 6, 6, 6, dtype=torch.float64), torch.randint(4, (4,))
    expected, found = (matrices_of(model, batch) for model in models)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-16)


def test_slope_and_curvature():
    x = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(3, 4)
    slope, curvature = derivatives(torch.tanh, x)
    torch.testing.assert_close(slope, 1 - x.tanh() ** 2)
    torch.testing.assert_close(curvature, -2 * x.tanh() * (1 - x.tanh() ** 2))
    slope, curvature = derivatives(lambda x: 3 * x + 1, x)
    assert torch.equal(slope, torch.full_like(x, 3))
    assert curvature is None


def test_the_slope_of_an_affine_function_per_channel():
    scale = torch.tensor([1.0, -2, 3], dtype=torch.float64)[:, None, None]
    x = torch.randn(5, 3, 4, 2, dtype=torch.float64)
    assert torch.equal(slope_of(lambda x: scale * x + 1, x), scale[None])


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("activation", [torch.tanh, F.relu], ids=["tanh", "relu"])
def test_a_scale_before_an_activation_by_hand(activation, absorbed):
    """J t = s f' t, and J' w + g f'' t = s f' w + s^2 g f'' t; an absorbed scale is 1."""
    generator = torch.Generator().manual_seed(0)
    x, g, t, w = torch.randn(4, 5, 3, dtype=torch.float64, generator=generator)
    s = torch.tensor([0.5, -1, 2], dtype=torch.float64)
    slope, curvature = ramp_derivatives(x, 3.0) if activation is F.relu else derivatives(torch.tanh, x)
    node = Elementwise([0], activation, lambda _: (slope.clone(), curvature.clone()), None if absorbed else s)
    node.run(x)
    factor = torch.ones(3, dtype=torch.float64) if absorbed else s
    torch.testing.assert_close(node.linearize([g]), [g * slope])
    torch.testing.assert_close(node.jvp([t]), [factor * slope * t])
    torch.testing.assert_close(node.transpose([w]), [factor * slope * w + factor**2 * g * curvature * t])
    torch.testing.assert_close(node.transpose([None]), [factor**2 * g * curvature * t])


def test_a_channel_scale_by_hand():
    s, x = torch.tensor([0.5, -1, 2]), torch.ones(4, 3)
    node = ChannelScale([0], lambda x: s * x + 1, s)
    torch.testing.assert_close(node.run(x), s * x + 1)
    for product in (node.jvp, node.transpose, node.linearize):
        torch.testing.assert_close(product([x]), [s * x])
    assert node.transpose([None]) == node.jvp([None]) == [None]
    assert not node.has_curvature
