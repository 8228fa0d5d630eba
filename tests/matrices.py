"""Symmetric matrices that are known, and what is true of a spectrum of them."""

from dataclasses import fields

import torch

from nni_s3d import Spectrum


def random_matrices(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    S = torch.randn(n, d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return ((S + S.mT) / 2).to(dtype)


def with_eigenvalues(*values: float, n: int = 3, seed: int = 0) -> torch.Tensor:
    """Return n matrices with these eigenvalues and random eigenvectors."""
    vectors = torch.linalg.qr(random_matrices(n, len(values), seed)).Q
    return vectors @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ vectors.mT


def rank_one(n: int, d: int, sign: float) -> torch.Tensor:
    v = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return sign * v[:, :, None] * v[:, None, :]


MATRICES = {
    "one dimension": random_matrices(4, 1),
    "two dimensions": random_matrices(4, 2),
    "indefinite": random_matrices(5, 9),
    "larger": random_matrices(3, 20),
    "zero": torch.zeros(3, 6, 6, dtype=torch.float64),
    "zero among others": torch.stack([torch.zeros(7, 7, dtype=torch.float64), *random_matrices(2, 7)]),
    "identity": with_eigenvalues(*[2.0] * 6),
    "repeated extremes": with_eigenvalues(-3, -3, -3, 0, 1, 4, 4),
    "two values": with_eigenvalues(*[-1.0] * 8, *[2.0] * 8),
    "rank one, positive": rank_one(3, 8, 1),
    "rank one, negative": rank_one(3, 15, -1),
    "positive definite": with_eigenvalues(0.1, 0.5, 1, 2, 3),
    "negative definite": with_eigenvalues(-0.1, -0.5, -1, -2, -3, *[-0.7] * 10),
    "tiny": 1e-30 * random_matrices(3, 14),
    "scales that differ": random_matrices(3, 14) * torch.tensor([1e-8, 1, 1e8], dtype=torch.float64)[:, None, None],
}


def true_residuals(S: torch.Tensor, found: Spectrum) -> tuple[torch.Tensor, torch.Tensor]:
    """Return |S v - lambda v| relative to the larger of the two eigenvalues that were found."""
    radius = torch.maximum(found.lambda_min.abs(), found.lambda_max.abs())
    scale = torch.where(radius > 0, radius, 1)
    ends = ((found.lambda_min, found.v_min), (found.lambda_max, found.v_max))
    low, high = ((torch.einsum("nij,nj->ni", S, v) - value[:, None] * v).norm(dim=1) / scale for value, v in ends)
    return low, high


def check(S: torch.Tensor, found: Spectrum, tolerance: float) -> None:
    """Compare with a dense decomposition, and the residuals with the true ones."""
    values = torch.linalg.eigvalsh(S)
    radius = values.abs().amax(1).clamp(min=1e-300)
    assert ((found.lambda_min - values[:, 0]).abs() <= tolerance * radius).all()
    assert ((found.lambda_max - values[:, -1]).abs() <= tolerance * radius).all()
    for v in (found.v_min, found.v_max):
        torch.testing.assert_close(v.norm(dim=1), torch.ones(len(S), dtype=S.dtype), rtol=1e-12, atol=0)
    low, high = true_residuals(S, found)
    torch.testing.assert_close(found.residual_min, low, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(found.residual_max, high, rtol=1e-6, atol=1e-12)
    assert torch.equal(found.converged, torch.maximum(found.residual_min, found.residual_max) <= tolerance)
    assert found.converged.all()


def assert_same_bits(found: Spectrum, expected: Spectrum) -> None:
    for field in fields(Spectrum):
        value, other = getattr(found, field.name), getattr(expected, field.name)
        assert (value is None and other is None) or torch.equal(torch.as_tensor(value), torch.as_tensor(other))
