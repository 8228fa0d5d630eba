"""Sums of products over two dimensions of a weight, and layers that learn a function on every edge."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_s3d.growth.graph.kernel_products import KernelProduct, as_kernel_product
from nni_s3d.growth.graph.own_tensors import OwnTensors
from tests.growth.graph.registered import Case, check_predicted_change, check_unmoved_split, check_widths
from tests.wide import sample

W, X = sample(5, 4, 3), sample(2, 4, 3)
EQUAL = {
    "a KAN layer": ("bik,oik->bo", X, W),
    "the rows in the middle": ("bid, iod -> bo", sample(2, 5, 3), W),
    "the weight first": ("oik,bik->ob", W, X),
    "more dimensions": ("btki,oik->tbo", sample(2, 6, 3, 4), W),
}


@pytest.mark.parametrize("name", EQUAL)
def test_the_same_by_a_convolution(name):
    product = as_kernel_product(OwnTensors({"w": W}), *EQUAL[name])
    assert isinstance(product, KernelProduct)
    torch.testing.assert_close(product(), torch.einsum(*EQUAL[name]))
    torch.testing.assert_close(product.turned()(), product())


@pytest.mark.parametrize(
    "args",
    [
        ("bi,oik->bok", X[..., 0], W),  # one dimension
        ("bik,bik->b", X, X),  # no weight
        ("...ik,oik->...o", X, W),
        ("bik,oik->bok", X, W),
        ("bii,oik->bo", sample(2, 4, 4), W),  # a diagonal
        ("bik,oik->b", X, W),  # a sum beside
        ("bik,oik", X, W),
    ],
)
def test_other_sums_of_products_stay(args):
    assert as_kernel_product(OwnTensors({"w": W}), *args) is None


class Edges(nn.Module):
    """Chebyshev polynomials or bumps of every input, each with weights of its own for every output."""

    def __init__(self, inputs: int, outputs: int, equation: str) -> None:
        super().__init__()
        self.equation = equation
        shape = {"i": inputs, "o": outputs, "k": 3}
        self.weight = nn.Parameter(torch.randn([shape[letter] for letter in equation[4:7]]) / 2)

    def forward(self, x: Tensor) -> Tensor:
        basis = torch.stack([x.tanh(), F.silu(x), torch.exp(-(x**2))], dim=-1)
        return torch.einsum(self.equation, basis, self.weight)


def edges(equation: str) -> Case:
    def build() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(Edges(4, 5, equation), Edges(5, 3, equation)).double()

    return Case(build, (6, 4), {"0": 5})


every_equation = pytest.mark.parametrize("equation", ["bik,oik->bo", "bik,iok->bo", "bik,kio->bo"])


@every_equation
def test_the_groups_are_found(equation):
    check_widths(edges(equation))


@every_equation
def test_splits_that_do_not_move_change_nothing(equation):
    check_unmoved_split(edges(equation))


@every_equation
def test_the_loss_changes_as_predicted(equation):
    check_predicted_change(edges(equation))
