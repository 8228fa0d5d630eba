"""Functions of users whose derivatives are other ones than those of their values are refused by name."""

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.registered_functions import check_derivatives


def written(forward, backward, decorate=lambda f: f):
    """Return an autograd function of its forward pass and its slope."""

    class Written(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        @decorate
        def backward(ctx, gradient):
            return gradient * backward(*ctx.saved_tensors)

    return Written.apply


def silu_slope(x):
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


class Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return silu_slope(x)

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no second time")


RIGHT = {
    "silu": written(F.silu, silu_slope),
    "linear": written(lambda x: 3 * x, lambda x: 3.0),
    "of the whole": lambda x: F.softmax(x, dim=-1),
    "two results": lambda x: x.square().chunk(2, dim=-1),
    "leaky beside a curve": lambda x: F.leaky_relu(x) * torch.sigmoid(x),
    "nothing": lambda x: x * 0,
    "steps": torch.sign,
}
WRONG = {  # and what is said
    "straight through": (written(torch.sign, lambda x: 1.0), "a backward pass of another function"),
    "reversed": (written(lambda x: x.clone(), lambda x: -1.0), "a backward pass of another function"),
    "binarised": (written(torch.sign, lambda x: (x.abs() < 1).to(x)), "a backward pass of another function"),
    "once": (written(F.silu, silu_slope, once_differentiable), "a backward pass that can be differentiated only once"),
    "an error": (written(F.silu, Failing.apply), "that can be differentiated twice, got: no second time"),
    "detached": (written(F.silu, lambda x: silu_slope(x.detach())), "got zeros though its slope is not constant"),
    "piecewise linear": (written(torch.relu, lambda x: (x > 0).to(x)), "or a function that is piecewise linear"),
    "an even one": (written(torch.abs, torch.sign), "or a function that is piecewise linear"),
    "detached in part": (
        written(F.silu, lambda x: torch.sigmoid(x).detach() * (1 + x * (1 - torch.sigmoid(x).detach()))),
        "another second derivative: part of it is detached",
    ),
}
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def sample(dtype):
    return torch.randn(32, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


@dtypes
@pytest.mark.parametrize("name", RIGHT)
def test_right_derivatives_pass(name, dtype):
    check_derivatives(name, RIGHT[name], RIGHT[name], [sample(dtype)])


@dtypes
@pytest.mark.parametrize("name", WRONG)
def test_wrong_derivatives_are_refused_by_name(name, dtype):
    function, message = WRONG[name]
    with pytest.raises(s3d.ModelError, match=f"{name}: expected .*{message}"):
        check_derivatives(name, function, function, [sample(dtype)])


def test_differences_in_low_precision_say_nothing():
    function = WRONG["reversed"][0]
    check_derivatives("reversed", function, function, [sample(torch.bfloat16)])


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def test_an_operator_is_not_built_of_them():
    s3d.register_function(Reversed, "elementwise")

    class Act(nn.Module):
        def forward(self, x):
            return Reversed.apply(x)

    model, x = nn.Sequential(nn.Linear(4, 5), Act(), nn.Linear(5, 2)), torch.randn(9, 4)
    graph = s3d.trace(model, x)
    with pytest.raises(s3d.ModelError, match="Reversed: expected the derivative of its forward pass"):
        s3d.SplittingOperator(model, graph, [(x, torch.zeros(9, 2))], F.mse_loss)


def _bent(x, slopes):
    return torch.maximum(x, slopes * x)


def _clamped(x):
    return F.relu6(x + 3) * x / 6


def _jagged(x):
    return torch.where(x > 0, x, x / 2)


bent, clamped, jagged = map(s3d.register_function, (_bent, _clamped, _jagged))


class Called(nn.Module):
    def __init__(self, function, *parameters):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, 5), nn.Linear(5, 2), function
        self.slopes = nn.ParameterList(parameters)

    def forward(self, x):
        return self.b(self.function(self.a(x), *self.slopes))


@pytest.mark.parametrize(
    ("registered", "known"),
    [(lambda: (clamped,), F.hardswish), (lambda: (bent, nn.Parameter(torch.rand(5) / 9)), None)],
)
@pytest.mark.parametrize("operator", [s3d.SplittingOperator, s3d.PlainSplittingOperator])
def test_kinks_inside_of_a_function_have_their_curvature(registered, known, operator):
    torch.manual_seed(0)
    model, x, t = Called(*registered()).double(), torch.randn(32, 4).double(), torch.randint(2, (32,))
    S = operator(model, s3d.trace(model, x), [(x, t)], F.cross_entropy).dense("a")
    assert S.abs().max() > 1e-2
    if known is not None:
        model.function = known
        expected = s3d.SplittingOperator(model, s3d.trace(model, x), [(x, t)], F.cross_entropy).dense("a")
        torch.testing.assert_close(S, expected, rtol=1e-9, atol=1e-14)


def test_kinks_that_nobody_sees_are_refused():
    model, x = Called(jagged), torch.randn(9, 4)
    graph = s3d.trace(model, x)
    with pytest.raises(s3d.ModelError, match="_jagged: expected a second derivative, got zeros"):
        s3d.SplittingOperator(model, graph, [(x, torch.zeros(9, 2))], F.mse_loss)
