import pytest
import torch

from nni_s3d import spectrum
from nni_s3d.growth.eigen.rayleigh import rayleigh
from tests.cases import BY_NAME, measured
from tests.matrices import MATRICES, random_matrices, true_residuals
from tests.reference import DenseOperator, published_rayleigh


@pytest.mark.parametrize("name", ["indefinite", "positive definite", "two dimensions"])
def test_rayleigh_approaches_both_ends(name):
    S = MATRICES[name]
    values = torch.linalg.eigvalsh(S)
    spread = values[:, -1] - values[:, 0]
    far, near = (rayleigh(DenseOperator({"g": S}, parts), epochs=2)["g"] for parts in (5, 800))
    for found, wanted in ((far, None), (near, 0.05)):
        assert (found.lambda_min >= values[:, 0] - 1e-9).all()
        assert (found.lambda_max <= values[:, -1] + 1e-9).all()
        if wanted is not None:
            assert (found.lambda_min - values[:, 0] <= wanted * spread).all()
            assert (values[:, -1] - found.lambda_max <= wanted * spread).all()
    assert far.residual_min.max() > near.residual_min.max()


@pytest.mark.parametrize("parts", [1, 300])
def test_rayleigh_reports_an_honest_residual(parts):
    S = random_matrices(5, 7)
    found = rayleigh(DenseOperator({"group": S}, parts), tolerance=0.05, epochs=3)["group"]
    low, high = true_residuals(S, found)
    torch.testing.assert_close(found.residual_min, low)
    torch.testing.assert_close(found.residual_max, high)
    assert torch.equal(found.converged, torch.maximum(low, high) <= 0.05)
    assert bool(found.converged.all()) == (parts == 300)
    assert found.matvecs == 3 * parts * 2 + 2


def test_rayleigh_is_the_published_descent():
    S = random_matrices(4, 6)
    found = rayleigh(DenseOperator({"group": S}, parts=4), seed=3, epochs=6)["group"]
    (low, v_low), (high, v_high) = published_rayleigh(S, batches=4, epochs=6, seed=3)
    torch.testing.assert_close(found.lambda_min, low)
    torch.testing.assert_close(found.lambda_max, high)
    torch.testing.assert_close(found.v_min, v_low)
    torch.testing.assert_close(found.v_max, v_high)


def test_rayleigh_on_zero_matrices():
    found = rayleigh(DenseOperator({"group": MATRICES["zero"]}, parts=3))["group"]
    assert not found.lambda_min.any()
    assert not found.residual_min.any()
    assert found.converged.all()
    torch.testing.assert_close(found.v_min.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_rayleigh_takes_the_parts_of_a_real_operator():
    found = spectrum(measured(BY_NAME["mlp-tanh"]).op, "rayleigh", epochs=2)
    assert {name: s.v_min.shape for name, s in found.items()} == {"0": (5, 5), "2": (4, 6)}
    assert found["0"].matvecs == 2 * 1 * 2 + 2
