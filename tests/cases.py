"""Small seeded float64 networks, each with data and a loss, that every exactness test runs over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests import reference


@dataclass(frozen=True)
class Case:
    """One network with its data; every call of a method gives fresh objects with the same values."""

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]  # of one sample
    smooth: bool  # whether every activation has a second derivative
    classes: int = 3
    seed: int = 0

    def model(self) -> nn.Module:
        """Return the network in evaluation mode, with random running statistics and affine parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.build().double().eval()
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, 0, 0.3)
                    nn.init.normal_(module.running_mean, 0, 0.3)
                    nn.init.uniform_(module.running_var, 0.5, 1.5)
                if isinstance(module, nn.PReLU):
                    nn.init.uniform_(module.weight, 0.1, 0.6)
        return model

    def inputs(self, samples: int = 6, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(samples, *self.input_shape, dtype=torch.float64, generator=generator)

    def targets(self, samples: int = 6, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.classes, (samples,), generator=generator)

    def batch(self, samples: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
        return self.inputs(samples, seed), self.targets(samples, seed)

    @property
    def loss_fn(self) -> Callable[[Tensor, Tensor], Tensor]:
        return F.cross_entropy


class Mlp(nn.Sequential):
    """Two hidden layers."""

    def __init__(self, act: Callable[[], nn.Module], hidden: tuple[int, int] = (5, 4)) -> None:
        a, b = hidden
        super().__init__(nn.Linear(4, a), act(), nn.Linear(a, b), act(), nn.Linear(b, 3))


class ConvBn(nn.Sequential):
    """Convolutions without bias, each with batch norm."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            act(),
            nn.Conv2d(4, 3, 3, stride=2, bias=False),
            nn.BatchNorm2d(3),
            act(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 3),
        )


class Separable(nn.Sequential):
    """Depthwise-separable blocks as in MobileNetV1; the second depthwise layer has a bias and two filters each."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__(
            nn.Conv2d(2, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
            act(),
            nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False),
            nn.BatchNorm2d(3),
            act(),
            nn.Conv2d(3, 4, 1, bias=False),
            nn.BatchNorm2d(4),
            act(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4),
            nn.BatchNorm2d(8),
            act(),
            nn.Conv2d(8, 3, 1),
            act(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 3),
        )


class PoolFlatten(nn.Sequential):
    """Every channel reaches the linear layer at several positions, side by side."""

    def __init__(self, act: Callable[[], nn.Module], pool: Callable[[int], nn.Module]) -> None:
        super().__init__(
            nn.Conv2d(1, 3, 3), act(), pool(2), nn.Flatten(), nn.Linear(3 * 4, 5), act(), nn.Dropout(), nn.Linear(5, 3)
        )


class Residual(nn.Module):
    """A stream with three producers; `inner` consumes the stream and produces into it."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.reduce, self.reduce_norm = nn.Conv2d(4, 3, 1, bias=False), nn.BatchNorm2d(3)
        self.expand = nn.Conv2d(3, 4, 3, padding=1)
        self.act, self.head = act(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.norm(self.stem(x))
        stream = self.inner(self.act(stream.clone())) + stream
        block = self.expand(self.act(self.reduce_norm(self.reduce(stream))))
        block += stream
        return self.head(self.act(block).mean(dim=(2, 3)))


class SoftmaxBetween(nn.Sequential):
    """A layer in the middle that cannot be split; the groups on both sides can."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__(
            nn.Linear(4, 5), act(), nn.Linear(5, 4), nn.Softmax(-1), nn.Linear(4, 3), act(), nn.Linear(3, 3)
        )


class OneGate(nn.Module):
    """Channels times a single number, which cannot be split and in which other neurons end."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.hidden, self.gate = nn.Linear(4, 3), nn.Linear(3, 1)
        self.main, self.head, self.act = nn.Linear(4, 4), nn.Linear(4, 3), act()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.main(x)) * torch.sigmoid(self.gate(self.act(self.hidden(x)))))


class Gated(nn.Module):
    """Squeeze and excitation: the channels are multiplied by functions of their own means."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv1d(2, 3, 3), nn.Linear(3, 2), nn.Linear(2, 3)
        self.act, self.read = act(), nn.Conv1d(3, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        gate = torch.sigmoid(self.excite(self.act(self.squeeze(x.mean(-1)))))
        return self.read(x * gate.unsqueeze(-1)).amax(2)


class Functional(nn.Module):
    """Activations that are no modules: functions, methods, operators, in place and not."""

    def __init__(self, smooth: bool) -> None:
        super().__init__()
        self.smooth = smooth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ((4, 5), (5, 3), (3, 4), (4, 3)))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, head = self.layers
        if self.smooth:
            x = F.silu(first(x), inplace=True)
            x = 0.5 * torch.tanh(second(x)).square() - 1
            x = F.softplus(third(x) / 2, beta=2)
        else:
            x = F.relu(first(x), inplace=True)
            x = second(x).relu_() * 2
            x = torch.relu(third(x))
        return head(x)


class PRelus(nn.Module):
    """One slope for each channel, and one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.each = nn.Conv2d(1, 3, 3), nn.PReLU(3)
        self.hidden, self.all = nn.Linear(3, 4), nn.PReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.each(self.conv(x)).mean((2, 3))
        return self.head(self.all(self.hidden(x)))


relu = partial(nn.ReLU, inplace=True)
relu6 = partial(nn.ReLU6, inplace=True)

CASES = (
    Case("mlp-tanh", partial(Mlp, nn.Tanh), (4,), smooth=True),
    Case("mlp-relu", partial(Mlp, nn.ReLU), (4,), smooth=False),
    Case("mlp-one-neuron", partial(Mlp, nn.Tanh, (1, 1)), (4,), smooth=True),
    Case("conv-bn-silu", partial(ConvBn, nn.SiLU), (2, 6, 6), smooth=True),
    Case("conv-bn-relu", partial(ConvBn, relu), (2, 6, 6), smooth=False),
    Case("separable-silu", partial(Separable, nn.SiLU), (2, 5, 5), smooth=True),
    Case("separable-relu6", partial(Separable, relu6), (2, 5, 5), smooth=False),
    Case("pool-flatten-gelu", partial(PoolFlatten, nn.GELU, nn.AvgPool2d), (1, 6, 6), smooth=True),
    Case("pool-flatten-leaky", partial(PoolFlatten, nn.LeakyReLU, nn.MaxPool2d), (1, 6, 6), smooth=False),
    Case("residual-silu", partial(Residual, nn.SiLU), (2, 5, 5), smooth=True),
    Case("residual-relu", partial(Residual, relu), (2, 5, 5), smooth=False),
    Case("softmax-between", partial(SoftmaxBetween, nn.SiLU), (4,), smooth=True),
    Case("one-gate", partial(OneGate, nn.SiLU), (4,), smooth=True),
    Case("gated-tanh", partial(Gated, nn.Tanh), (2, 7), smooth=True),
    Case("gated-hardswish", partial(Gated, nn.Hardswish), (2, 7), smooth=False),
    Case("functional-smooth", partial(Functional, smooth=True), (4,), smooth=True),
    Case("functional-relu", partial(Functional, smooth=False), (4,), smooth=False),
    Case("prelu", PRelus, (1, 5, 5), smooth=False),
)
SMOOTH = tuple(case for case in CASES if case.smooth)
BY_NAME = {case.name: case for case in CASES}

all_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
smooth_cases = pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)


@dataclass(frozen=True)
class Measured:
    """What the tests need again and again of one case; shared, so nothing in it may be changed."""

    model: nn.Module
    graph: s3d.ChannelGraph
    op: s3d.SplittingOperator
    spectrum: dict[str, s3d.Spectrum]


@cache
def measured(case: Case) -> Measured:
    model = case.model()
    graph = s3d.trace(model, case.inputs())
    op = s3d.SplittingOperator(model, graph, [case.batch()], case.loss_fn)
    return Measured(model, graph, op, s3d.spectrum(op, "exact"))


def random_plan(case: Case, seed: int, moving: bool = True, c: float = 2.0, choices=(1, 2, 3, 4)) -> s3d.GrowthPlan:
    """Return a plan with random copies of the neurons of all groups at once."""
    run = measured(case)
    copies = reference.plan_of_random_copies(run.graph, choices, seed)
    return s3d.plan_from_copies(run.graph, copies, run.spectrum if moving else None, c=c)


def operator(case: Case, model: nn.Module, *batches: tuple, smoothing: float = 3.0) -> s3d.SplittingOperator:
    """Return the operator of a model that takes the inputs of a case."""
    graph = s3d.trace(model, case.inputs())
    return s3d.SplittingOperator(model, graph, batches or [case.batch()], case.loss_fn, smoothing)


def random_vectors(op: s3d.SplittingOperator, seed: int = 0) -> dict[str, Tensor]:
    """Return one vector for every neuron."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, dtype=op.dtype, generator=generator) for name, shape in op.shapes.items()}


def check_operator(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Hold the operator against the Hessian of the network in which every neuron is split in two."""
    loss_fn = nn.CrossEntropyLoss()
    graph = s3d.trace(model, x)
    op = s3d.SplittingOperator(model, graph, [(x, y)], loss_fn)
    assert graph.splittable_groups
    for group in graph.splittable_groups:
        expected = reference.splitting_matrices(model, group, (x, y), loss_fn)
        assert expected.abs().max() > 1e-5
        torch.testing.assert_close(op.dense(group.name), expected, rtol=1e-9, atol=1e-14)


def matrices_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Return the splitting matrices of all groups."""
    op = s3d.SplittingOperator(model, s3d.trace(model, batch[0]), [batch], nn.CrossEntropyLoss())
    return [op.dense(name) for name in op.shapes]
