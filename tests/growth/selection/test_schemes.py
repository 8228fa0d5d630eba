import math
import re

import numpy as np
import pytest
import torch

from nni_s3d import ConfigError, Scheme, gain, scheme
from nni_s3d.growth.selection.schemes import best_scheme, scheme_of
from nni_s3d.growth.selection.settings import SchemeSettings
from tests import reference

CS = (1, 1.3, 2.0, 3.0)
ALL = [(m, c, triplet) for m in (2, 3, 4) for c in CS for triplet in ("optimal", "paper")]


def matrices(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Return random symmetric matrices: mostly indefinite, some of one sign."""
    S = torch.randn(n, d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    S = (S + S.mT) / 2
    shift = torch.zeros(n, dtype=torch.float64)
    shift[: n // 5], shift[n // 5 : 2 * n // 5] = 4, -4
    return S + shift[:, None, None] * torch.eye(d, dtype=torch.float64)


def ends(S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.linalg.eigvalsh(S)
    return values[:, 0], values[:, -1]


def displacements(best: Scheme, S: torch.Tensor) -> torch.Tensor:
    """Return delta_j, (n, m, d), from the eigenvectors of S."""
    vectors = torch.linalg.eigh(S).eigenvectors
    v_min, v_max = vectors[:, None, :, 0], vectors[:, None, :, -1]
    return best.along_min[..., None] * v_min + best.along_max[..., None] * v_max


@pytest.mark.parametrize(("copies", "c", "triplet"), ALL)
def test_schemes_keep_the_constraints_of_eqs_6_and_7(copies, c, triplet):
    S = matrices(60, 3)
    best = scheme(*ends(S), copies, c, triplet=triplet)
    delta = displacements(best, S)
    assert best.weights.shape == (60, copies)
    torch.testing.assert_close(best.weights.sum(1), torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-12)
    assert best.weights.abs().sum(1).max() <= c + 1e-12
    assert torch.einsum("nm,nmd->nd", best.weights, delta).abs().max() < 1e-12
    assert delta.norm(dim=2).max() <= 1 + 1e-12


@pytest.mark.parametrize(("copies", "c", "triplet"), ALL)
@pytest.mark.parametrize("d", [2, 3, 7])
def test_gain_is_what_the_scheme_gains_on_the_real_matrix(copies, c, triplet, d):
    S = matrices(40, d, seed=d)
    best = scheme(*ends(S), copies, c, triplet=triplet)
    delta = displacements(best, S)
    forms = torch.einsum("nmi,nij,nmj->nm", delta, S, delta)
    torch.testing.assert_close((best.weights * forms).sum(1), best.gain, rtol=1e-10, atol=1e-12)
    assert torch.equal(gain(*ends(S), copies, c, triplet=triplet), best.gain)
    assert (best.gain <= 0).all()


@pytest.mark.parametrize("c", CS)
@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("d", [2, 3])
def test_gain_is_the_brute_force_minimum_of_eq_6(d, copies, c):
    S = matrices(5, d, seed=10 + d)  # one positive and one negative definite, three indefinite
    predicted = gain(*ends(S), copies, c)
    found = [reference.best_gain(matrix.numpy(), copies, c) for matrix in S]
    np.testing.assert_allclose(found, predicted, rtol=1e-5, atol=1e-6)


def test_theorem_2_1():
    low, high = ends(matrices(40, 3))
    for c in CS:
        expected = torch.stack([low, -(c - 1) / (c + 1) * high, torch.zeros_like(low)]).amin(0)
        torch.testing.assert_close(gain(low, high, 2, c), expected)


def test_theorem_2_2():
    low, high = ends(matrices(40, 3))
    for c in CS:
        expected = torch.stack([(c + 1) / 2 * low, -(c - 1) / 2 * high, torch.zeros_like(low)]).amin(0)
        torch.testing.assert_close(gain(low, high, 3, c, triplet="paper"), expected)


def test_theorem_2_3():
    low, high = ends(matrices(40, 3))
    for c in CS:
        expected = (c + 1) / 2 * low.clamp(max=0) - (c - 1) / 2 * high.clamp(min=0)
        torch.testing.assert_close(gain(low, high, 4, c), expected)


def test_one_example_of_every_scheme():
    low, high = torch.tensor([-1.0]), torch.tensor([2.0])
    assert gain(low, high, 2, 1.3).item() == pytest.approx(-1)
    assert gain(low, high, 2, 5.0).item() == pytest.approx(-4 / 6 * 2)
    assert gain(low, high, 3, 1.3, triplet="paper").item() == pytest.approx(-1.15)
    assert gain(low, high, 3, 1.3).item() == pytest.approx(-1.15 - 0.3 + 0.09 / 4.6 * 3)
    assert gain(low, high, 4, 1.3).item() == pytest.approx(-1.15 - 0.3)


def test_the_triplet_of_the_paper_is_never_better_and_sometimes_worse():
    low, high = ends(matrices(200, 3))
    for c in (1.3, 2.0, 3.0):
        optimal, paper = gain(low, high, 3, c), gain(low, high, 3, c, triplet="paper")
        assert (optimal <= paper).all()
        assert (optimal < 0.99 * paper).any()
    assert torch.equal(gain(low, high, 3, 1, triplet="optimal"), gain(low, high, 3, 1, triplet="paper"))


@pytest.mark.parametrize("c", CS)
def test_more_copies_never_gain_less(c):
    low, high = ends(matrices(200, 3))
    gains = [gain(low, high, m, c) for m in (2, 3, 4)]
    assert (gains[2] <= gains[1] + 1e-12).all()
    assert (gains[1] <= gains[0] + 1e-12).all()


@pytest.mark.parametrize("c", CS)
def test_the_guarantee_of_eq_12(c):
    low, high = ends(matrices(200, 3))
    radius = torch.maximum(low.abs(), high.abs())
    for m, kappa in ((2, (c - 1) / (c + 1)), (3, (c - 1) / 2), (4, (c - 1) / 2)):
        assert (gain(low, high, m, c) <= -kappa * radius + 1e-12).all()


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_schemes_of_averaged_neurons_have_equal_weights(copies):
    low, high = torch.tensor([-1.0, 1.0, -1.0]).double(), torch.tensor([2.0, 2.0, 2.0]).double()
    averaged, settings = torch.tensor([True, True, False]), SchemeSettings(copies, 3.0)
    found = scheme_of(low, high, copies, settings, averaged)
    assert found.weights[:2].tolist() == [[1 / copies] * copies] * 2
    along = found.along_min[:2]
    torch.testing.assert_close(along.sum(dim=1), torch.zeros(2).double())
    assert len(set(along[0].tolist())) == copies  # no two copies stay equal
    assert not along[1].any()
    assert not found.along_max[:2].any()
    torch.testing.assert_close(found.gain[:2], (along**2).mean(dim=1) * low[:2].clamp(max=0))
    alone = best_scheme(low[2:], high[2:], copies, settings)
    assert torch.equal(found.weights[2:], alone.weights)
    assert torch.equal(found.gain[2:], alone.gain)


def test_c_of_one_is_splitting_steepest_descent():
    low, high = ends(matrices(40, 3))
    for m in (2, 3, 4):
        best = scheme(low, high, m, c=1)
        torch.testing.assert_close(best.gain, low.clamp(max=0))
        assert (best.weights >= 0).all()


@pytest.mark.parametrize("triplet", ["optimal", "paper"])
@pytest.mark.parametrize("copies", [2, 3, 4])
def test_dead_neurons_gain_nothing_and_stay(copies, triplet):
    zero = torch.zeros(3)
    best = scheme(zero, zero, copies, 1.3, triplet=triplet)
    assert torch.equal(best.gain, zero)
    assert not best.along_min.any()
    assert not best.along_max.any()
    torch.testing.assert_close(best.weights.sum(1), torch.ones(3))


def test_a_neuron_without_use_for_either_end_stays():
    best = scheme(torch.tensor([1.0]), torch.tensor([2.0]), 2, c=1)
    assert best.gain.item() == 0
    assert not best.along_min.any()
    assert not best.along_max.any()


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_a_neuron_whose_spectrum_is_no_number_stays(copies):
    best = scheme(torch.tensor([math.nan, -1.0]), torch.tensor([math.nan, math.nan]), copies)
    assert not best.along_min.any()
    assert not best.along_max.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_schemes_keep_the_dtype(dtype):
    best = scheme(torch.tensor([-1.0], dtype=dtype), torch.tensor([1.0], dtype=dtype), 3)
    assert {best.weights.dtype, best.along_min.dtype, best.along_max.dtype, best.gain.dtype} == {dtype}


def test_no_neurons_have_no_schemes():
    assert scheme(torch.zeros(0), torch.zeros(0), 4).weights.shape == (0, 4)


@pytest.mark.parametrize("copies", [0, 1, 5, -2, True, 2.0, "2", None])
def test_copies_other_than_two_to_four_are_refused(copies):
    with pytest.raises(ConfigError, match=r"copies: expected 2, 3 or 4 .*got " + repr(copies)):
        gain(torch.zeros(1), torch.zeros(1), copies)


@pytest.mark.parametrize(
    "c", [0.99, 0, -1, math.inf, math.nan, True, "1.3", None, 2e200, pytest.param(10**400, id="huge")]
)
def test_c_out_of_range_is_refused(c):
    with pytest.raises(ConfigError, match=r"c: expected a number >= 1 .*got " + re.escape(repr(c))):
        scheme(torch.zeros(1), torch.zeros(1), 2, c)


@pytest.mark.parametrize(
    ("low", "high", "match"),
    [
        (-1.0, 1.0, r"lambda_min: expected a tensor of shape \(n,\), .*, got float"),
        ([-1.0], torch.ones(1), r"lambda_min: expected a tensor of shape \(n,\), .*, got list"),
        (torch.zeros(2), torch.ones(3), r"lambda_max: expected a tensor of shape \(n,\), .*, got \(3,\)"),
        (torch.zeros(2, 2), torch.zeros(2, 2), r"lambda_min: expected .*, got \(2, 2\)"),
    ],
)
def test_what_is_no_pair_of_spectral_ends_is_refused(low, high, match):
    with pytest.raises(ConfigError, match=match):
        gain(low, high)


def test_an_unknown_triplet_is_refused():
    with pytest.raises(ConfigError, match="triplet: expected one of optimal, paper, got 'best'"):
        scheme(torch.zeros(1), torch.zeros(1), 3, triplet="best")
