"""The protocol of operators; scipy's solvers see one neuron's matrix and check ours."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg

import nni_s3d as s3d
from nni_s3d.growth.eigen.operator import finite, shape_of, shares_of, to_scipy
from tests.cases import BY_NAME, all_cases, measured
from tests.matrices import random_matrices
from tests.reference import DenseOperator


def ends(matrix: LinearOperator, start: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest eigenvalue as ARPACK finds them, which takes neither d <= 2 nor S = 0."""
    d = len(start)
    if d <= 2 or np.abs(matrix @ start).max() < 1e-14:
        values = np.linalg.eigvalsh(matrix @ np.eye(d))
        return values[0], values[-1]
    smallest, largest = eigsh(matrix, k=2, which="BE", v0=start, ncv=d, return_eigenvectors=False)
    return smallest, largest


def test_the_matrix_of_one_neuron():
    S = random_matrices(4, 7)
    op = DenseOperator({"other": random_matrices(2, 3), "group": S})
    for neuron in range(4):
        matrix = to_scipy(op, "group", neuron)
        assert (matrix.shape, matrix.dtype) == ((7, 7), np.float64)
        np.testing.assert_allclose(matrix @ np.eye(7), S[neuron].numpy(), rtol=1e-14)
        np.testing.assert_allclose(matrix.T @ np.eye(7), S[neuron].numpy(), rtol=1e-14)
    assert to_scipy(DenseOperator({"group": S.float()}), "group", 0).dtype == np.float32


@all_cases
@pytest.mark.parametrize("solver", ["exact", "lanczos"])
def test_eigsh_finds_both_ends(case, solver):
    op = measured(case).op
    for name, solution in s3d.spectrum(op, solver, tolerance=1e-8).items():
        width, d = op.shapes[name]
        radius = float(torch.maximum(solution.lambda_min.abs(), solution.lambda_max.abs()).max())
        for neuron in range(width):
            matrix = op.to_scipy(name, neuron)
            assert matrix.dtype == np.float64
            smallest, largest = ends(matrix, np.random.default_rng(neuron).standard_normal(d))
            assert float(solution.lambda_min[neuron]) == pytest.approx(smallest, abs=1e-8 * radius)
            assert float(solution.lambda_max[neuron]) == pytest.approx(largest, abs=1e-8 * radius)


@pytest.mark.parametrize("largest", [False, True])
def test_lobpcg_finds_the_same_ends(largest):
    run = measured(BY_NAME["residual-silu"])
    widest = max(run.op.shapes, key=lambda name: run.op.shapes[name][1])
    width, d = run.op.shapes[widest]
    assert d >= 10  # below, LOBPCG solves densely
    ends = run.spectrum[widest].lambda_max if largest else run.spectrum[widest].lambda_min
    for neuron in range(width):
        start = np.random.default_rng(neuron).standard_normal((d, 2))
        values, _ = lobpcg(run.op.to_scipy(widest, neuron), start, largest=largest, tol=1e-10, maxiter=300)
        assert values[0] == pytest.approx(float(ends[neuron]), rel=1e-6)


def test_neurons_that_are_not_there_are_refused():
    op = DenseOperator({"group": random_matrices(4, 7)})
    with pytest.raises(s3d.ConfigError, match="neuron: expected a number from 0 to 3, got 4"):
        to_scipy(op, "group", 4)
    with pytest.raises(s3d.ModelError, match="nothing: expected a splittable group, one of group"):
        to_scipy(op, "nothing", 0)


def test_shapes_by_name():
    assert shape_of({"group": (2, 3)}, "group") == (2, 3)
    with pytest.raises(s3d.ModelError, match="other: expected a splittable group, one of group, more"):
        shape_of({"group": (2, 3), "more": (1, 1)}, "other")


def test_shares_sum_to_one():
    op = DenseOperator({"group": random_matrices(1, 2)})
    op.folds = [DenseOperator({"group": random_matrices(1, 2)}) for _ in range(3)]
    for fold, samples in zip(op.folds, (1, 2, 5), strict=True):
        fold.samples = samples
    torch.testing.assert_close(shares_of(op), torch.tensor([1, 2, 5], dtype=torch.float64) / 8)


def test_products_that_are_not_finite_are_refused():
    assert torch.equal(finite(torch.ones(2), "group"), torch.ones(2))
    for broken in ("nan", "inf"):
        with pytest.raises(s3d.ModelError, match="group: expected finite splitting matrices, got infinity or NaN"):
            finite(torch.tensor([1.0, float(broken)]), "group")
