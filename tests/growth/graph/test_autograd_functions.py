"""Autograd functions that people write themselves are refused by name, unless they are registered."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import nni_s3d as s3d
from nni_s3d.growth.graph.autograd_functions import announced_functions


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


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return torch.sign(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength=1.0):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


class Derived(Swish):
    """Has another backward."""

    @staticmethod
    def backward(ctx, gradient):
        return gradient


swish = Swish.apply  # kept as it is, which is often done


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.c, self.function = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3), function

    def forward(self, x):
        return self.c(torch.tanh(self.b(self.function(self.a(x)))))


CALLS = {
    "Swish": Swish.apply,
    "Swish, kept": swish,
    "Swish, called late": lambda x: Swish.apply(x),
    "StraightThrough": lambda x: StraightThrough.apply(x),
    "Reversal": lambda x: Reversal.apply(x, 0.5),
    "Swish, derived": lambda x: Derived.apply(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_their_channels_are_refused_by_name_and_the_others_grow(name):
    torch.manual_seed(0)
    model, x, y = Net(CALLS[name]), torch.randn(6, 4), torch.randint(3, (6,))
    graph = s3d.trace(model, x)
    assert f"enter the autograd function {name.partition(',')[0]}, whose backward nobody knows" in graph["a"].reason
    assert "nni_s3d.register_function" in graph["a"].reason
    assert list(graph.widths) == ["b"]
    op = s3d.SplittingOperator(model, graph, [(x, y)], nn.functional.cross_entropy)
    rest, hidden = nn.Sequential(model.b, nn.Tanh(), model.c), CALLS[name](model.a(x)).detach()
    expected = s3d.SplittingOperator(rest, s3d.trace(rest, hidden), [(hidden, y)], nn.functional.cross_entropy)
    torch.testing.assert_close(op.dense("b"), expected.dense("0"))
    assert op.dense("b").abs().max() > 1e-5


@pytest.mark.parametrize("reentrant", [False, True])
def test_functions_of_pytorch_are_followed(reentrant):
    model = Net(lambda x: checkpoint(torch.tanh, x, use_reentrant=reentrant))
    assert s3d.trace(model, torch.randn(6, 4)).widths == {"a": 5, "b": 6}


def test_the_functions_are_left_as_they_were():
    forward = Swish.__dict__["forward"]
    with announced_functions():
        assert Swish.__dict__["forward"] is not forward
    assert Swish.__dict__["forward"] is forward
    with pytest.raises(s3d.ModelError, match="fails on the example inputs"):
        s3d.trace(Net(swish), torch.randn(6, 3))
    assert Swish.__dict__["forward"] is forward
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(swish, (x,))
