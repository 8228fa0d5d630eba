import pytest
import torch

from nni_s3d import ModelError
from nni_s3d.growth.eigen.exact import exact
from tests.matrices import MATRICES, check, random_matrices
from tests.reference import DenseOperator


@pytest.mark.parametrize("name", MATRICES)
def test_it_is_a_dense_decomposition(name):
    S = MATRICES[name]
    solution = exact(DenseOperator({"group": S}), "group", tolerance=1e-12)
    check(S, solution, 1e-12)
    assert solution.matvecs == S.shape[-1]


def test_matrices_that_rounding_has_left_unsymmetric_are_made_symmetric():
    S = random_matrices(3, 6)
    skew = 1e-9 * torch.randn(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    solution = exact(DenseOperator({"group": S + skew - skew.mT}), "group", tolerance=1e-12)
    torch.testing.assert_close(solution.lambda_min, torch.linalg.eigvalsh(S)[:, 0], rtol=1e-12, atol=0)
    check(S, solution, 1e-12)


def test_matrices_that_are_not_finite_are_refused():
    S = random_matrices(2, 4)
    S[0, 1, 1] = float("inf")
    with pytest.raises(ModelError, match="group: expected finite splitting matrices, got infinity or NaN"):
        exact(DenseOperator({"group": S}), "group")
