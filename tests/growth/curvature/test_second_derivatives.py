import pytest
import torch
from torch.autograd import gradgradcheck
from torch.nn import functional as F

from nni_s3d.growth.curvature.second_derivatives import twice_differentiable


def test_the_second_derivative_of_weight_norm():
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(3, 4, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    g = torch.rand(3, 1, 1, dtype=torch.float64, generator=generator, requires_grad=True)
    ours = twice_differentiable(torch._weight_norm, "weight_norm")
    torch.testing.assert_close(ours(v, g, 0), torch._weight_norm(v, g, 0))
    assert gradgradcheck(lambda v, g: ours(v, g, 0), (v, g))


def test_the_second_derivative_of_attention():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3))
    ours = twice_differentiable(F.scaled_dot_product_attention, "scaled_dot_product_attention")
    torch.testing.assert_close(ours(q, k, v), F.scaled_dot_product_attention(q, k, v))
    assert gradgradcheck(ours, (q, k, v))


@pytest.mark.parametrize("func, name", [(torch.tanh, "tanh"), (F.linear, "linear")])
def test_other_functions_are_called_as_they_are(func, name):
    assert twice_differentiable(func, name) is func
