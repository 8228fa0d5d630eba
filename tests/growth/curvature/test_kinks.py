"""Kinks that what follows takes away: the predicted change of the loss is the measured one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.kinks import kinks_of, near
from nni_s3d.growth.curvature.recorded_call import RecordedCall


class Act(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _in_place(x):
    return F.relu(x + 0, inplace=True).square_()


SMOOTH = {  # compositions whose slope has no jump
    "relu(x)**2": lambda x: torch.relu(x) ** 2,
    "square": lambda x: F.relu(x).square(),
    "pow(3)": lambda x: F.relu(x).pow(3),
    "the product of two": lambda x: torch.relu(x) * torch.relu(x),
    "the product with itself": lambda x: (lambda y: y * y)(F.relu(x)),
    "the product with the input": lambda x: x * F.relu(x),
    "in place": _in_place,
    "leaky_relu(x)**2": lambda x: F.leaky_relu(x, 0.5) ** 2,
    "clamp(x)**2": lambda x: x.clamp(min=0) ** 2,
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)) ** 2,
    "scaled and shifted": lambda x: 2 * (0.5 * F.relu(x) + 0.0).square() + 1,
    "softsign by hand": lambda x: x / (1 + x.abs()),
    "x |x|": lambda x: x * x.abs(),
}
KINKED = {  # compositions that keep their kinks, and the curvature that they always had
    "a shifted one": (lambda x: (F.relu(x) + 1) ** 2, lambda x: F.leaky_relu(x, 0.0).add(1).square()),
    "a gate": (lambda x: F.relu(x) * torch.sigmoid(x), lambda x: torch.sigmoid(x) * F.relu(x)),
    "hardswish by hand": (lambda x: x * F.relu6(x + 3) / 6, F.hardswish),
    "a slope, then a square": (lambda x: F.elu(F.relu(x)).exp(), lambda x: F.relu(x).exp()),
}


def measured(function, operator=s3d.SplittingOperator):
    torch.manual_seed(1)
    x, t = torch.randn(64, 5, dtype=torch.float64), torch.randint(3, (64,))
    model = nn.Sequential(nn.Linear(5, 8), Act(function), nn.Linear(8, 3)).double()
    graph = s3d.trace(model, x)
    return model, graph, operator(model, graph, [(x, t)], F.cross_entropy), lambda m: F.cross_entropy(m(x), t).item()


@pytest.mark.parametrize("name", SMOOTH)
def test_the_predicted_change_of_the_loss_is_the_measured_one(name):
    model, graph, op, loss = measured(SMOOTH[name])
    plan = s3d.select(s3d.spectrum(op), graph, s3d.TopFraction(0.35), copies=2)
    epsilon = 1e-4
    change = loss(s3d.split(model, graph, plan, epsilon=epsilon).model) - loss(model)
    assert plan.gain < -0.05
    assert change / (epsilon**2 / 2 * plan.gain) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_both_operators_agree(name):
    function = SMOOTH.get(name) or KINKED[name][0]
    S = measured(function)[2].dense("0")
    torch.testing.assert_close(measured(function, s3d.PlainSplittingOperator)[2].dense("0"), S, rtol=1e-9, atol=1e-14)
    assert S.abs().max() > 1e-3


@pytest.mark.parametrize("name", KINKED)
def test_kinks_that_stay_keep_their_curvature(name):
    found, expected = (measured(f)[2].dense("0") for f in KINKED[name])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def test_one_kink_of_two_is_taken_away():
    x = torch.linspace(-4.05, 10, 57, dtype=torch.float64)
    call = RecordedCall(F.relu6, "relu6", (x,), {}, beta=3.0, matters=lambda y: y is x)
    kinks = kinks_of(call)
    assert kinks.values == {0: 0, 6: 6}
    assert torch.equal(near(x.clamp(0, 6), kinks, [True, False]), x <= 3)
    S = measured(lambda x: F.relu6(3 * x) ** 2)[2].dense("0")
    sharp = measured(lambda x: F.relu6(3 * x) ** 2, s3d.PlainSplittingOperator)[2].dense("0")
    torch.testing.assert_close(S, sharp, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("func", "name", "args", "values"),
    [
        (F.hardtanh, "hardtanh", (-2, 3.0), {-2: -2, 3: 3}),
        (F.hardsigmoid, "hardsigmoid", (), {-3: 0, 3: 1}),
        (torch.clamp, "clamp", (None, 4), {4: 4}),
        (torch.clamp, "clamp", (torch.zeros(3), 4), {0: 0, 4: 4}),
        (F.softshrink, "softshrink", (0.5,), {0.5: 0, -0.5: 0}),
        (F.threshold, "threshold", (1.0, 1.0), {1: 1}),
        (torch.minimum, "minimum", (torch.ones(1, 3),), {1: 1}),
    ],
)
def test_the_places_of_kinks(func, name, args, values):
    x = torch.randn(2, 3)
    call = RecordedCall(func, name, (x, *args), {}, beta=3.0, matters=lambda y: y is x)
    assert kinks_of(call).values == values


def test_kinks_that_are_no_numbers_are_not_followed():
    x = torch.randn(2, 3)
    for func, name, args in (
        (torch.maximum, "maximum", (torch.randn(3),)),
        (torch.tanh, "tanh", ()),
        (F.hardswish, "hardswish", ()),
    ):
        assert kinks_of(RecordedCall(func, name, (x, *args), {}, beta=3.0, matters=lambda y: y is x)) is None
