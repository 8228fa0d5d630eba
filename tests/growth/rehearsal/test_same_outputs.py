import pytest
import torch

from nni_s3d.growth.rehearsal.same_outputs import same_outputs

X = torch.linspace(-1, 1, 50, dtype=torch.float64)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (X, True),
        (X + 1e-9, True),
        (X + 1e-4, False),
        (X[:-1], False),
        (X.where(X < 0.9, torch.inf), False),
        (X.where(X < 0.9, torch.nan), False),
    ],
)
def test_outputs_are_compared_up_to_rounding(other, same):
    assert same_outputs([other], [X]) == same
    assert same_outputs([torch.complex(other, other)], [torch.complex(X, X)]) == same


def test_a_tolerance_below_that_of_the_precision_counts():
    x = X.float()
    assert same_outputs([x + 1e-3], [x])
    assert not same_outputs([x + 1e-3], [x], 3e-5)
    assert same_outputs([x + 1e-6], [x], 3e-5)


def test_what_varies_counts_and_not_how_large_it_is():
    assert not same_outputs([1e3 + X + 1e-4], [1e3 + X])
    assert same_outputs([1e3 * X + 1e-4], [1e3 * X])


def test_infinite_and_whole_numbers():
    scores = X.where(X < 0.9, -torch.inf)
    assert same_outputs([scores], [scores])
    assert not same_outputs([scores + 1e-3], [scores])
    assert same_outputs([torch.tensor([1])], [torch.tensor([2])])  # an index of a maximum, say
    assert same_outputs([torch.full((3,), torch.nan)], [torch.full((3,), torch.nan)])


def test_the_number_of_outputs_counts():
    assert not same_outputs([X, X], [X])
    assert same_outputs([], [])
