"""Functions between producers and consumers that are recorded in a way of their own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import nni_s3d as s3d
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from tests import reference

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIDES = {1: (13,), 2: (7, 6), 3: (5, 4, 6)}
POOLS = {
    "1d": nn.MaxPool1d(2),
    "2d": nn.MaxPool2d(2),
    "3d": nn.MaxPool3d(2),
    "overlapping 1d": nn.MaxPool1d(3, 1, padding=1),
    "overlapping 2d": nn.MaxPool2d(3, 2, padding=1),
    "dilated 2d": nn.MaxPool2d(2, 1, dilation=2),
    "up to the border 2d": nn.MaxPool2d((3, 2), ceil_mode=True),
    "adaptive 1d": nn.AdaptiveMaxPool1d(4),
    "adaptive 2d": nn.AdaptiveMaxPool2d((3, 2)),
    "adaptive 3d": nn.AdaptiveMaxPool3d(2),
}
IN_PLACE = {  # a function that changes x, the module that returns the same
    "torch.relu_": (torch.relu_, nn.ReLU()),
    "method": (lambda x: x.relu_(), nn.ReLU()),
    "by keyword": (lambda x: F.relu(input=x, inplace=True), nn.ReLU()),
    "by position": (lambda x: F.relu(x, True), nn.ReLU()),
    "relu6": (lambda x: F.relu6(x, True), nn.ReLU6()),
    "leaky_relu_": (lambda x: F.leaky_relu_(x, 0.4), nn.LeakyReLU(0.4)),
    "hardtanh_": (lambda x: F.hardtanh_(x, -2.0, 3.5), nn.Hardtanh(-2.0, 3.5)),
    "hardsigmoid": (lambda x: F.hardsigmoid(x, True), nn.Hardsigmoid()),
    "hardswish": (lambda x: F.hardswish(x, True), nn.Hardswish()),
    "rrelu": (lambda x: F.rrelu(x, 0.1, 0.5, False, True), nn.RReLU(0.1, 0.5)),
    "threshold": (lambda x: F.threshold(x, 0.1, -2.3, True), nn.Threshold(0.1, -2.3)),
    "silu": (lambda x: F.silu(x, inplace=True), nn.SiLU()),
    "tanh_": (lambda x: x.tanh_(), nn.Tanh()),
}


class Written(nn.Module):
    """What was written into the hidden tensor goes on, not what the function returned."""

    def __init__(self, change, *layers: nn.Module) -> None:
        super().__init__()
        self.change, self.layers = change, nn.ModuleList(layers)

    def forward(self, x):
        hidden = self.layers[0](x)
        self.change(hidden)
        return self.layers[1](hidden)


class ChangedLater(nn.Module):
    """A tensor is changed in place after a function has read it, or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first, self.last, self.in_place = nn.Linear(3, 4), nn.Linear(4, 4), in_place

    def forward(self, x):
        hidden = self.first(x)
        read = F.softplus(hidden)
        hidden = hidden.mul_(0.5) if self.in_place else hidden * 0.5
        return self.last(read + torch.tanh(hidden))


class Checkpointed(nn.Module):
    """The middle is computed again in the backward pass, or not."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.layers, self.again = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4)]), again

    def middle(self, x):
        return F.silu(self.layers[1](F.silu(self.layers[0](x))))

    def forward(self, x):
        return self.layers[2](checkpoint(self.middle, x, use_reentrant=False) if self.again else self.middle(x))


class Side(nn.Module):
    """A hidden tensor meets one that belongs to another group, or to none, but depends on parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 4), nn.Linear(3, 4)
        self.scale, self.last = nn.Parameter(torch.rand(3) + 0.5), nn.Linear(4, 4)

    def forward(self, x):
        return self.last(F.silu(self.one(x)) * torch.tanh(self.other(x * self.scale)))


def check(model, x, y):
    """Hold the operator against the Hessian of the network in which every neuron is split in two."""
    loss_fn = nn.CrossEntropyLoss()
    graph = s3d.trace(model, x)
    op = s3d.SplittingOperator(model, graph, [(x, y)], loss_fn)
    assert graph.splittable_groups
    for group in graph.splittable_groups:
        expected = reference.splitting_matrices(model, group, (x, y), loss_fn)
        assert expected.abs().max() > 1e-5
        torch.testing.assert_close(op.dense(group.name), expected, rtol=1e-9, atol=1e-14)


def dense(model, batch):
    """Return the splitting matrices of all groups."""
    op = s3d.SplittingOperator(model, s3d.trace(model, batch[0]), [batch], nn.CrossEntropyLoss())
    return [op.dense(name) for name in op.shapes]


@pytest.mark.parametrize("name", POOLS)
def test_max_pooling(name):
    torch.manual_seed(0)
    dims = int(name[-2])
    pool = POOLS[name]
    layers = CONV[dims](2, 3, 2), nn.Tanh(), pool, CONV[dims](3, 3, 2, padding=1), nn.ReLU(), pool
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4)).double()
    x = torch.randn(5, 2, *SIDES[dims], dtype=torch.float64)
    model(x)
    check(model.eval(), x, torch.randint(4, (5,)))


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_activations(name):
    torch.manual_seed(0)
    change, module = IN_PLACE[name]
    layers = nn.Linear(3, 5), nn.Linear(5, 4)
    model = Written(change, *layers).double().eval()
    twin = nn.Sequential(layers[0], module, layers[1]).eval()
    batch = 4 * torch.randn(40, 3, dtype=torch.float64), torch.randint(4, (40,))
    check(twin, *batch)
    torch.testing.assert_close(dense(model, batch), dense(twin, batch), rtol=1e-12, atol=1e-16)
    with torch.no_grad():
        torch.testing.assert_close(model(batch[0]), twin(batch[0]))


@pytest.mark.parametrize("kind", [ChangedLater, Checkpointed])
def test_detours_change_nothing(kind):
    torch.manual_seed(0)
    plain, detour = kind(False).double(), kind(True).double()
    detour.load_state_dict(plain.state_dict())
    batch = torch.randn(7, 3, dtype=torch.float64), torch.randint(4, (7,))
    check(plain, *batch)
    torch.testing.assert_close(dense(detour, batch), dense(plain, batch), rtol=1e-12, atol=1e-16)


def test_inputs_from_the_side():
    torch.manual_seed(0)
    check(Side().double(), torch.randn(7, 3, dtype=torch.float64), torch.randint(4, (7,)))


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
    check(model, x, torch.randint(4, (shape[0],)))


def test_a_scale_behind_a_transposed_convolution():
    torch.manual_seed(0)
    plain, transposed = nn.Conv2d(6, 6, 1), nn.ConvTranspose2d(6, 6, 1)
    transposed.weight.data, transposed.bias.data = plain.weight.data.transpose(0, 1), plain.bias.data
    norm, consumer = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 6)
    norm.weight.data = torch.rand(6) + 0.3
    models = [nn.Sequential(Scaled(p, norm, consumer), nn.Flatten()).double().eval() for p in (plain, transposed)]
    batch = torch.randn(4, 6, 6, 6, dtype=torch.float64), torch.randint(4, (4,))
    expected, found = (dense(model, batch) for model in models)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-16)


def test_zeros_are_laid_out_like_what_they_stand_for_and_share_their_memory():
    zeros = ZeroBuffer()
    plain = torch.randn(2, 3, 4, 5)
    last = plain.to(memory_format=torch.channels_last)
    found = [zeros.like(x) for x in (plain, last, last[:1], plain[:, ::2], plain.double())]
    assert [x.shape for x in found] == [(2, 3, 4, 5), (2, 3, 4, 5), (1, 3, 4, 5), (2, 2, 4, 5), (2, 3, 4, 5)]
    assert found[0].is_contiguous()
    assert found[1].is_contiguous(memory_format=torch.channels_last)
    assert all(x.eq(0).all() for x in found)
    assert len({x.untyped_storage().data_ptr() for x in found[:4]}) == 1
    assert found[4].dtype == torch.float64
    assert zeros.like(torch.randn(7, 100)).numel() == 700
