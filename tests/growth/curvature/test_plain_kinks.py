"""Functions of every element are run as they are, but for their curvature at kinks."""

import torch
from torch.nn import functional as F

from nni_s3d.growth.curvature.plain_kinks import PlainKinks


def second(function, x):
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    return torch.autograd.grad(first.sum(), x)[0]


def test_a_square_of_an_activation_has_its_own_curvature_alone():
    x = torch.linspace(-2.01, 2, 41, dtype=torch.float64)

    def squared(x):
        kinks = PlainKinks(3.0)
        return kinks.run(torch.square, "square", (kinks.run(F.relu, "relu", (x,), {}),), {})

    torch.testing.assert_close(second(squared, x), 2 * (x > 0).double())


def test_functions_in_place_change_their_tensor():
    kinks, x = PlainKinks(3.0), torch.randn(5)
    expected = x.clamp(min=0).square()
    y = x.clone()
    assert kinks.run(torch.Tensor.clamp_, "clamp", (y,), {"min": 0}) is y
    assert kinks.run(torch.Tensor.square_, "square", (y,), {}) is y
    assert torch.equal(y, expected)


def test_other_functions_are_run_as_they_are():
    kinks, x = PlainKinks(3.0), torch.randn(5)
    assert torch.equal(kinks.run(torch.cumsum, "cumsum", (x, 0), {}), x.cumsum(0))
    assert torch.equal(kinks.run(torch.abs, "abs", (x.long(),), {}), x.long().abs())
