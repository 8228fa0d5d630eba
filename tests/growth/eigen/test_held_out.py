"""Held-out quotients against the same found fold by fold, and against samples that nobody has seen."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.eigen.exact import exact
from nni_s3d.growth.eigen.held_out import FOLDS, HeldOut, cross_fitted, fold_ends, mean_and_error
from nni_s3d.growth.eigen.lanczos import lanczos
from tests.cases import BY_NAME
from tests.reference import DenseOperator


class Folds(DenseOperator):
    """Matrices (folds, n, d, d) and how many samples stand behind each fold."""

    def __init__(self, matrices, samples):
        share = torch.tensor(samples, dtype=matrices.dtype) / sum(samples)
        super().__init__({"group": torch.einsum("f,fnij->nij", share, matrices)})
        self.folds = [DenseOperator({"group": S}) for S in matrices]
        for fold, count in zip(self.folds, samples, strict=True):
            fold.samples = count


def noisy(folds, n, d, signal=0.0, seed=0):
    """Return one matrix per neuron, scaled by `signal`, seen through noise of its own on every fold."""
    generator = torch.Generator().manual_seed(seed)
    S = signal * torch.randn(1, n, d, d, dtype=torch.float64, generator=generator)
    S = S + torch.randn(folds, n, d, d, dtype=torch.float64, generator=generator)
    return (S + S.mT) / 2


def one_by_one(matrices, samples, basis=None):
    """Return (folds, n) quotients at both ends, fold by fold and neuron by neuron."""
    found = torch.zeros(2, *matrices.shape[:2], dtype=matrices.dtype)
    for f in range(len(matrices)):
        others = [g for g in range(len(matrices)) if g != f]
        for i in range(matrices.shape[1]):
            V = torch.eye(matrices.shape[-1], dtype=matrices.dtype) if basis is None else basis[i]
            mean = sum(samples[g] * matrices[g, i] for g in others) / sum(samples[g] for g in others)
            _, vectors = torch.linalg.eigh(V @ mean @ V.mT)
            for end, column in ((0, 0), (1, -1)):
                v = V.mT @ vectors[:, column]
                found[end, f, i] = v @ matrices[f, i] @ v
    return found


@pytest.mark.parametrize("samples", [(1, 1), (5, 2, 3), (128,) * 7 + (40,)])
def test_every_fold_is_held_out_once(samples):
    S = noisy(len(samples), n=4, d=6, signal=1.0)
    low, high = one_by_one(S, samples)
    for found in (
        exact(Folds(S, samples), "group").held_out,
        lanczos(Folds(S, samples), ["group"], tolerance=1e-12)["group"].held_out,
    ):
        torch.testing.assert_close(found.lambda_min, low, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.lambda_max, high, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.shares, torch.tensor(samples, dtype=S.dtype) / sum(samples))


def test_lanczos_holds_out_within_its_space():
    samples, steps = (3, 1, 2), 5
    S = noisy(3, n=4, d=14, signal=1.0)
    op = Folds(S, samples)
    found = lanczos(op, ["group"], tolerance=1e-14, max_steps=steps)["group"].held_out
    start = torch.randn(4, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    powers = [start]
    for _ in range(steps - 1):
        powers.append(op.matvec({"group": powers[-1]})["group"])
    basis = torch.linalg.qr(torch.stack(powers, dim=2)).Q.mT
    low, high = one_by_one(S, samples, basis)
    torch.testing.assert_close(found.lambda_min, low, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(found.lambda_max, high, rtol=1e-7, atol=1e-10)


def test_noise_alone_promises_nothing_on_held_out_samples():
    S = noisy(FOLDS, n=200, d=12)
    found = exact(Folds(S, (1,) * FOLDS), "group")
    ones = torch.ones(200, dtype=torch.float64)
    mean, error = mean_and_error(found.held_out.total(ones, 0 * ones), found.held_out.shares)
    promised = float(found.lambda_min.sum())
    assert promised < -250
    assert abs(mean) < 3 * error < 0.1 * abs(promised)


def test_signal_is_found_on_held_out_samples():
    generator = torch.Generator().manual_seed(3)
    v = torch.nn.functional.normalize(torch.randn(50, 10, dtype=torch.float64, generator=generator), dim=1)
    S = noisy(FOLDS, n=50, d=10) - 20 * v[:, :, None] * v[:, None, :]
    found = exact(Folds(S, (1,) * FOLDS), "group").held_out
    mean, error = mean_and_error(found.total(torch.ones(50).double(), torch.zeros(50).double()), found.shares)
    assert mean == pytest.approx(-1000, rel=0.01)
    assert 0 < error < 10


def test_the_error_is_that_of_a_mean():
    shares, totals = torch.full((5,), 0.2, dtype=torch.float64), torch.tensor([1.0, 2, 4, 8, 5], dtype=torch.float64)
    mean, error = mean_and_error(totals, shares)
    assert mean == pytest.approx(4.0)
    assert error == pytest.approx(float(totals.std()) / 5**0.5)


def test_a_single_fold_leaves_nothing_to_compare_with():
    assert cross_fitted(noisy(1, 3, 4), torch.ones(1)) is None
    assert s3d.spectrum(Folds(noisy(1, 3, 4), (7,)))["group"].held_out is None


@pytest.mark.parametrize("batches", [1, 3, 8, 11])
def test_folds_of_an_operator_are_disjoint_and_make_it_up(batches):
    case = BY_NAME["conv-bn-silu"]
    model = case.model()
    x, y = case.batch(24)
    sizes = [2] * (batches - 1) + [24 - 2 * (batches - 1)]
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    op = s3d.SplittingOperator(model, s3d.trace(model, x[:1]), parts, case.loss_fn)
    assert len(op.folds) == min(batches, FOLDS)
    assert sum(fold.samples for fold in op.folds) == op.samples == 24
    assert [part for fold in op.folds for part in fold.parts] == op.parts
    for name in op.shapes:
        mean = sum(fold.samples / 24 * fold.dense(name) for fold in op.folds)
        torch.testing.assert_close(mean, op.dense(name), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_the_held_out_gain_of_a_plan_is_that_of_its_schemes_on_every_fold(copies):
    layers = torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)
    graph = s3d.trace(torch.nn.Sequential(*layers), torch.randn(2, 4))
    spectrum = exact(DenseOperator({"0": noisy(1, 6, 5)[0]}), "0")
    ends = (spectrum.lambda_min, spectrum.lambda_max)
    held_out = HeldOut(*(torch.stack([end, 3 * end]) for end in ends), torch.tensor([0.5, 0.5], dtype=torch.float64))
    found = {"0": replace(spectrum, held_out=held_out)}
    plan = s3d.plan_from_copies(graph, {"0": torch.full((6,), copies)}, found, c=2.0)
    assert plan.gain == pytest.approx(float(s3d.gain(*ends, copies, c=2.0).sum()))
    assert plan.held_out_gain == pytest.approx(2 * plan.gain)
    assert plan.held_out_error == pytest.approx(-plan.gain)
    assert s3d.plan_from_copies(graph, {"0": torch.full((6,), copies)}, {"0": spectrum}).held_out_gain is None


def test_sums_over_neurons():
    found = HeldOut(torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[5.0, 6], [7, 8]]), torch.tensor([0.5, 0.5]))
    assert found.total(torch.tensor([1.0, 10]), torch.tensor([0.0, 2])).tolist() == [33, 59]


@pytest.mark.parametrize(("batches", "sizes"), [(1, [1]), (3, [1, 1, 1]), (8, [1] * 8), (19, [2, 2, 3, 2, 2, 3, 2, 3])])
def test_folds_are_batches_that_follow_each_other(batches, sizes):
    ends = fold_ends(batches)
    assert (ends[0], ends[-1]) == (0, batches)
    assert [b - a for a, b in pairwise(ends)] == sizes
