"""Networks whose functions are recorded in a way of their own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import nni_s3d as s3d
from nni_s3d.growth.curvature.elementwise_nodes import ChannelScale, Elementwise
from nni_s3d.growth.curvature.nodes import Linear, MaxPool, Node, TwiceDifferentiable
from nni_s3d.growth.curvature.tape import Tape
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from nni_s3d.growth.graph.functions import canonical_name
from tests.cases import check_operator, matrices_of


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


@pytest.mark.parametrize("kind", [ChangedLater, Checkpointed])
def test_detours_change_nothing(kind):
    torch.manual_seed(0)
    plain, detour = kind(False).double(), kind(True).double()
    detour.load_state_dict(plain.state_dict())
    batch = torch.randn(7, 3, dtype=torch.float64), torch.randint(4, (7,))
    check_operator(plain, *batch)
    torch.testing.assert_close(matrices_of(detour, batch), matrices_of(plain, batch), rtol=1e-12, atol=1e-16)


def test_inputs_from_the_side():
    torch.manual_seed(0)
    check_operator(Side().double(), torch.randn(7, 3, dtype=torch.float64), torch.randint(4, (7,)))


class Identity:
    """A leaf that is its input."""

    def run(self, x):
        return x.clone()

    def linearize(self, cotangents):
        return [None]


def recorded(*functions, x):
    """Return a tape on which functions have run one after another behind a leaf, and the last result."""
    tape = Tape(3.0, ZeroBuffer())
    x, value = tape.leaf(Identity(), x)
    for func, *args in functions:
        x = tape.apply(func, canonical_name(func), (x, *args), {})
    return tape, x, value


KINDS = {
    "scale": ((torch.mul, 2.0), ChannelScale),
    "a number divided": ((torch.Tensor.__rtruediv__, 2.0), Elementwise),
    "activation": ((torch.tanh,), Elementwise),
    "ramp": ((torch.relu,), Elementwise),
    "pooling": ((F.max_pool2d, 2), MaxPool),
    "average": ((F.avg_pool2d, 2), Linear),
    "sum of positions": ((torch.sum, -1), Linear),
    "reshape": ((torch.flatten, 1), Linear),
    "convolution": ((F.conv2d, torch.ones(3, 3, 2, 2), torch.ones(3)), Linear),
    "softmax": ((torch.softmax, -1), TwiceDifferentiable),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_function_becomes(name):
    function, kind = KINDS[name]
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 5
    tape, out, value = recorded(function, x=x)
    node = tape.maker_of(1)
    assert type(node) is kind
    assert isinstance(node, Node)
    assert (node.inputs, node.outputs) == ([value], [1])
    torch.testing.assert_close(out, function[0](x, *function[1:]))


@pytest.mark.parametrize("function", [(torch.clone,), (torch.add, 3.0), (F.dropout, 0.5, False)])
def test_functions_that_make_no_new_value(function):
    x = torch.ones(2, 3)
    tape, out, value = recorded(function, x=x)
    tape.mark_consumed(out)
    assert tape.maker_of(1) is None
    assert tape.sole_reader(value) is None
    torch.testing.assert_close(out, function[0](x, *function[1:]))


def test_a_scale_before_an_activation_is_taken_in():
    tape, out, value = recorded((torch.mul, 2.0), (torch.tanh,), x=torch.ones(2, 3))
    tape.mark_consumed(out)
    tape.prune()
    reader = tape.sole_reader(value)
    assert isinstance(reader, Elementwise)
    assert reader.scale == 2


def test_what_no_consumer_reads_is_left_out():
    tape, out, value = recorded((torch.tanh,), x=torch.ones(2, 3))
    tape.prune()
    assert tape.sole_reader(value) is None
    torch.autograd.grad(out.sum(), tape.anchor, allow_unused=True)
    assert tape.segments() == []


def test_segments_share_no_value():
    tape = Tape(3.0, ZeroBuffer())
    a, b, c = (tape.leaf(Identity(), torch.ones(2, 3))[0] for _ in range(3))
    together = tape.apply(torch.tanh, "tanh", (tape.apply(torch.mul, "mul", (a, b), {}),), {})
    alone = tape.apply(torch.tanh, "tanh", (c,), {})
    for x in (together, alone):
        tape.mark_consumed(x)
    tape.prune()
    torch.autograd.grad((together.sum() + alone.sum()), tape.anchor, allow_unused=True)
    assert [sorted(segment.inputs)[:2] for segment in tape.segments()] == [[0, 1], [2]]


class Acts(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x)


def _in_place(x):
    x = x.clone()
    return x.clamp_(min=0)


WRITTEN = {  # an activation however it is written, and as a function of PyTorch
    "clamp(min=0)": (lambda x: x.clamp(min=0), torch.relu),
    "clamp(0)": (lambda x: torch.clamp(x, 0), torch.relu),
    "clip(0, 6)": (lambda x: x.clip(0, 6), F.relu6),
    "clamp_min": (lambda x: torch.clamp_min(x, 0), torch.relu),
    "clamp_, in place": (_in_place, torch.relu),
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), torch.relu),
    "max of two": (lambda x: torch.max(x, torch.tensor(0.0, dtype=x.dtype)), torch.relu),
    "fmax": (lambda x: torch.fmax(x, torch.zeros(1, dtype=x.dtype)), torch.relu),
    "minus minimum": (lambda x: x - torch.minimum(x, x.new_zeros(())), torch.relu),
    "maximum of two functions": (lambda x: torch.maximum(x, 0.1 * x), lambda x: F.leaky_relu(x, 0.1, False)),
    "threshold": (lambda x: F.threshold(x, 0, 0), torch.relu),
    "half of abs": (lambda x: (x + x.abs()) / 2, torch.relu),
    "hardtanh by min and max": (lambda x: x.clamp(max=1).clamp(min=-1), F.hardtanh),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, F.hardswish),
    "hardswish by clamp": (lambda x: x * (x + 3).clamp(0, 6) / 6, F.hardswish),
    "abs": (torch.abs, lambda x: torch.relu(x) + torch.relu(-x)),
    "prelu": (lambda x: x.clamp(min=0) + 0.3 * x.clamp(max=0), lambda x: F.leaky_relu(x, 0.3)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_piecewise_linear_functions_have_their_curvature_however_they_are_written(name):
    written, known = WRITTEN[name]
    torch.manual_seed(0)
    layers = nn.Linear(5, 8), nn.Linear(8, 3)
    x, t = torch.randn(64, 5, dtype=torch.float64), torch.randint(3, (64,))
    found = []
    for act in (written, known):
        model = nn.Sequential(layers[0], Acts(act), layers[1]).double()
        graph = s3d.trace(model, x)
        for operator in (s3d.SplittingOperator, s3d.PlainSplittingOperator):
            found.append(operator(model, graph, [(x, t)], F.cross_entropy).dense("0"))
    # Where one kink hides the tail of the other, or the bump is as wide as the difference of both functions has it.
    atol = 5e-3 if name in ("hardtanh by min and max", "maximum of two functions") else 1e-14
    for S in found[1:]:
        torch.testing.assert_close(S, found[0], rtol=1e-9, atol=atol)
    assert found[0].abs().max() > 1e-2


def test_whole_numbers_go_through_as_they_are():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x):
            near = torch.arange(3).sub(1).abs().clamp(max=1).maximum(torch.zeros(3, dtype=torch.int64))
            return self.b(torch.tanh(self.a(x[near.long()])))

    x = torch.randn(3, 4)
    model = Positions()
    op = s3d.SplittingOperator(model, s3d.trace(model, x), [(x, torch.zeros(3, 2))], F.mse_loss)
    assert op.dense("a").abs().max() > 1e-5


class Sampled(nn.Module):
    """Reads its channels at positions that are given."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Linear(3, 2)

    def forward(self, x, grid):
        x = torch.tanh(self.a(x))
        return self.b(torch.tanh(F.grid_sample(x, grid, align_corners=False)).mean((2, 3)))


def test_a_sample_at_fixed_positions_is_linear():
    torch.manual_seed(0)
    model = Sampled().double()
    x, grid = torch.randn(4, 2, 5, 5, dtype=torch.float64), torch.rand(4, 6, 6, 2, dtype=torch.float64) * 2 - 1
    graph = s3d.trace(model, (x, grid))
    t = torch.tensor([0, 1, 1, 0])
    op = s3d.SplittingOperator(model, graph, [((x, grid), t)], F.cross_entropy)
    plan = s3d.select(s3d.spectrum(op, solver="exact"), graph, s3d.TopFraction(1.0))
    change = F.cross_entropy(s3d.split(model, graph, plan, epsilon=1e-3).model(x, grid), t)
    change = (change - F.cross_entropy(model(x, grid), t)).item()
    assert change / (1e-6 / 2 * plan.gain) == pytest.approx(1, abs=0.01)
