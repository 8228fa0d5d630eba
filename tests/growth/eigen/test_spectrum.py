import torch

from nni_s3d import spectrum
from nni_s3d.growth.eigen.spectrum import Eigenpairs, normalize, with_residuals
from tests.matrices import random_matrices
from tests.reference import DenseOperator


def pairs(values: list[float], errors: list[float]) -> Eigenpairs:
    return Eigenpairs(torch.tensor(values), torch.eye(len(values)), torch.tensor(errors))


def test_residuals_are_relative_to_the_spectral_radius():
    smallest = pairs([-4.0, 1.0, 0.0], [0.4, 0.01, 0.0])
    largest = pairs([2.0, 10.0, 0.0], [0.2, 0.01, 0.0])
    judged = with_residuals(smallest, largest, tolerance=0.01, matvecs=7)
    torch.testing.assert_close(judged.residual_min, torch.tensor([0.1, 0.001, 0]))
    torch.testing.assert_close(judged.residual_max, torch.tensor([0.05, 0.001, 0]))
    assert judged.converged.tolist() == [False, True, True]
    assert judged.matvecs == 7
    assert judged.held_out is None


def test_normalize_keeps_directions_and_zero():
    vectors = torch.tensor([[3.0, 4], [0, 0], [3e-20, 4e-20], [-3e15, 4e15]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0, 0], [0.6, 0.8], [-0.6, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(normalize(vectors), expected)


def test_spectra_are_compared_by_identity():
    op = DenseOperator({"group": random_matrices(2, 6)})
    one, other = (spectrum(op, "exact")["group"] for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2
