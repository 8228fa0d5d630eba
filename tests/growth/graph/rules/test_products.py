import pytest
import torch

from tests.wide import check_refused, check_rest_grows, linears

REFUSED = {
    "a matrix product": (
        lambda m, x: m.b(m.a(x) @ torch.ones(3, 3, dtype=x.dtype)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "matmul sums over its channels with factors that are no parameter of the model",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])
