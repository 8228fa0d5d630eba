"""The Krylov space of Lanczos, seen through its solutions after every number of steps."""

import pytest
import torch

from nni_s3d.growth.eigen.krylov import Krylov
from nni_s3d.growth.eigen.lanczos import lanczos
from tests.matrices import MATRICES, random_matrices, true_residuals
from tests.reference import DenseOperator


def test_lanczos_reports_the_true_residual_after_every_number_of_steps():
    S, seen = random_matrices(6, 12), []
    for steps in range(1, 13):
        found = lanczos(DenseOperator({"group": S}), ["group"], tolerance=1e-12, max_steps=steps)["group"]
        low, high = true_residuals(S, found)
        torch.testing.assert_close(found.residual_min, low, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(found.residual_max, high, rtol=1e-6, atol=1e-12)
        assert found.matvecs == steps
        seen.append(float(torch.maximum(low, high).max()))
    assert seen[3] > 0.01
    assert seen[-1] < 1e-12


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_lanczos_vectors_have_nearly_the_smallest_residuals_of_their_space(steps):
    S = random_matrices(6, 14)
    found = lanczos(DenseOperator({"group": S}), ["group"], tolerance=1e-12, max_steps=steps)["group"]
    powers = [torch.randn(6, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))]
    for _ in range(steps - 1):
        powers.append(torch.einsum("nij,nj->ni", S, powers[-1]))
    V = torch.linalg.qr(torch.stack(powers, dim=2)).Q
    ritz = torch.linalg.eigh(V.mT @ S @ V).eigenvectors
    radius = torch.maximum(found.lambda_min.abs(), found.lambda_max.abs())
    for end, value, residual in ((0, found.lambda_min, found.residual_min), (-1, found.lambda_max, found.residual_max)):
        taken_out = (S - value[:, None, None] * torch.eye(14, dtype=torch.float64)) @ V
        of_ritz = torch.linalg.vector_norm(taken_out @ ritz[:, :, end, None], dim=(1, 2)) / radius
        smallest = torch.linalg.svdvals(taken_out)[:, -1] / radius
        assert (residual >= smallest * (1 - 1e-9)).all()
        assert (residual <= of_ritz * (1 + 1e-9)).all()
        assert (residual <= 1.02 * smallest).all()
        assert steps == 1 or (of_ritz > 1.1 * smallest).any()


@pytest.mark.parametrize("name", ["indefinite", "two values", "zero", "rank one, negative"])
def test_the_basis_is_orthonormal_and_the_matrix_in_it_tridiagonal(name):
    S, generator = MATRICES[name], torch.Generator().manual_seed(0)
    n, d, _ = S.shape
    start = torch.randn(n, d, dtype=S.dtype, generator=generator)
    space = Krylov(start, torch.ones(1, dtype=S.dtype), generator)
    for _ in range(d):
        space.extend(torch.einsum("nij,nj->ni", S, space.basis[-1])[None])
    V = torch.stack(space.basis[:d], dim=1)
    torch.testing.assert_close(V @ V.mT, torch.eye(d, dtype=S.dtype).expand(n, d, d), rtol=0, atol=1e-12)
    T = torch.diag_embed(torch.stack(space.alpha, dim=1))
    beside = torch.stack(space.beta[: d - 1], dim=1)
    T = T + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    torch.testing.assert_close(V @ S @ V.mT, T, rtol=0, atol=1e-11)
