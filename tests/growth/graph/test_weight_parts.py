"""What stands behind the weights that networks compute, checked on the weights that people compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.overrides import TorchFunctionMode

from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.row_norm import RowNorm
from nni_s3d.growth.graph.weight_parts import WeightParts, weight_parts

ROWS, COLUMNS = 4, 3


class Weights(TorchFunctionMode):
    """Keeps the weights that convolutions and linear layers are called with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.own, self.weights = OwnTensors.of(model), []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (F.linear, F.conv2d, F.conv_transpose2d):
            self.weights.append(args[1])
        self.own.follow(func, args, kwargs or {}, out)
        return out


class Standardised(nn.Conv2d):
    def __init__(self, gain: bool) -> None:
        super().__init__(COLUMNS, ROWS, 2)
        self.gain = nn.Parameter(torch.rand(ROWS, 1, 1, 1) + 0.5) if gain else None

    def forward(self, x):
        gain = None if self.gain is None else (self.gain * 0.7).view(-1)
        weight = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, gain, training=True, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.up = nn.Parameter(torch.randn(ROWS, COLUMNS)), nn.Parameter(torch.randn(ROWS, 2))
        self.down, self.rate = nn.Parameter(torch.randn(2, COLUMNS)), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return F.linear(x, self.w + self.rate * self.up @ self.down)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(ROWS, COLUMNS))
        self.register_buffer("mask", torch.tensor([[1.0, 0.0, 1.0]]).repeat(ROWS, 1))

    def forward(self, x):
        return F.linear(x, self.w * self.mask)


class Flat(nn.Module):
    """A weight whose columns are no dimension of the parameter that is normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(ROWS, COLUMNS * 4)), nn.Parameter(torch.rand(ROWS, 1))

    def forward(self, x):
        return F.conv2d(x, torch._weight_norm(self.v, self.g).view(-1, COLUMNS, 2, 2))


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def doubled() -> nn.Module:
    layer = nn.Linear(COLUMNS, ROWS)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


V, G = "parametrizations.weight.original1", "parametrizations.weight.original0"
IMAGE, VECTOR = torch.randn(2, COLUMNS, 5, 5), torch.randn(2, COLUMNS)
CASES = {
    "itself": (lambda: nn.Linear(COLUMNS, ROWS), VECTOR, WeightParts("weight", {"weight": 0}, {"weight": 1}, {})),
    "weight norm": (
        lambda: weight_norm(nn.Conv2d(COLUMNS, ROWS, 2)),
        IMAGE,
        WeightParts(V, {V: 0, G: 0}, {V: 1}, {}, {}, RowNorm(V, G, False, 0.0)),
    ),
    "weight norm of columns": (
        lambda: weight_norm(nn.ConvTranspose2d(COLUMNS, ROWS, 2)),
        IMAGE,
        WeightParts(V, {}, {G: 0}, {V: 0}),
    ),
    "standardised": (lambda: Standardised(gain=False), IMAGE, WeightParts("weight", {"weight": 0}, {}, {})),
    "standardised with a gain": (
        lambda: Standardised(gain=True),
        IMAGE,
        WeightParts("weight", {"weight": 0, "gain": 0}, {"weight": 1}, {}, {}, RowNorm("weight", "gain", True, 1e-6)),
    ),
    "weight norm of a flat parameter": (Flat, IMAGE, WeightParts("v", {"v": 0, "g": 0}, {}, {})),
    "spectral norm": (
        lambda: spectral_norm(nn.Linear(COLUMNS, ROWS)).eval(),
        VECTOR,
        WeightParts("parametrizations.weight.original", {}, {}, {}),
    ),
    "orthogonal": (
        lambda: orthogonal(nn.Linear(COLUMNS, ROWS), "weight", "cayley"),
        VECTOR,
        None,
    ),
    "low rank": (LowRank, VECTOR, WeightParts("w", {"w": 0, "up": 0}, {"w": 1, "down": 1}, {})),
    "masked": (Masked, VECTOR, WeightParts("w", {"w": 0}, {"w": 1}, {"mask": 1}, {"mask": 0})),
    "doubled": (
        doubled,
        VECTOR,
        WeightParts(
            "parametrizations.weight.original",
            {"parametrizations.weight.original": 0},
            {"parametrizations.weight.original": 1},
            {},
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_stands_behind_a_weight(name):
    make, inputs, expected = CASES[name]
    torch.manual_seed(0)
    model = make()
    with torch.no_grad(), Weights(model) as seen:
        model(inputs)
    row, column = (1, 0) if isinstance(model, nn.ConvTranspose2d) else (0, 1)
    parameters = dict(model.named_parameters())
    parts = weight_parts(seen.own, seen.weights[-1], row, column, parameters)
    if expected is None:  # it depends on how PyTorch writes it; no row may be taken for a neuron of its own
        assert parts is None or not parts.rows
    else:
        assert parts == expected


def test_a_weight_of_the_input_has_nothing_behind_it():
    assert weight_parts(OwnTensors({}), torch.rand(3, 4), 0, 1, ()) is None


@pytest.mark.parametrize(
    "parts, fits",
    [
        (WeightParts("w", {"w": 0}, {"w": 1}, {}), True),
        (WeightParts("w", {"w": 1}, {"w": 0}, {}), False),  # it is seen transposed
        (WeightParts("w", {"w": 0}, {"g": 1}, {"w": 1}), False),  # what is copied knows no blocks
    ],
)
def test_blocks_need_rows_and_columns_where_those_of_the_weight_are(parts, fits):
    assert parts.fits(0, 1, blocks=2) is fits
    assert parts.fits(0, 1, blocks=1)
