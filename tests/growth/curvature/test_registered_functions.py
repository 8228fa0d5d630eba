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
    check_derivatives(name, RIGHT[name], [sample(dtype)])


@dtypes
@pytest.mark.parametrize("name", WRONG)
def test_wrong_derivatives_are_refused_by_name(name, dtype):
    function, message = WRONG[name]
    with pytest.raises(s3d.ModelError, match=f"{name}: expected .*{message}"):
        check_derivatives(name, function, [sample(dtype)])


def test_differences_in_low_precision_say_nothing():
    check_derivatives("reversed", WRONG["reversed"][0], [sample(torch.bfloat16)])


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
