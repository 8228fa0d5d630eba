from dataclasses import fields

import pytest
import torch

from nni_s3d import ConfigError, ModelError, Spectrum, spectrum
from nni_s3d.growth.eigen.lanczos import LANCZOS_STEPS, LOOK_PARTS, LOOK_STEPS, lanczos
from nni_s3d.growth.eigen.rayleigh import rayleigh
from nni_s3d.growth.eigen.solve import SMALL, exact
from nni_s3d.growth.eigen.spectrum import TOLERANCE
from tests.cases import BY_NAME, measured
from tests.reference import DenseOperator, published_rayleigh


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


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("solver", ["exact", "lanczos", "auto"])
def test_both_ends_are_those_of_a_dense_decomposition(solver, name):
    S = MATRICES[name]
    found = spectrum(DenseOperator({"group": S}), solver, tolerance=1e-9)["group"]
    check(S, found, 1e-9)


@pytest.mark.parametrize("name", MATRICES)
def test_lanczos_at_the_usual_tolerance(name):
    S = MATRICES[name]
    found = lanczos(DenseOperator({"group": S}), ["group"])["group"]
    check(S, found, TOLERANCE)


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


def test_lanczos_looks_at_one_of_many_minibatches_first():
    S = with_eigenvalues(*torch.linspace(-1, 1, 60).sign() * torch.linspace(-1, 1, 60).square(), n=20)
    op = DenseOperator({"group": S})
    alone = lanczos(op, ["group"], tolerance=1e-3)["group"].matvecs
    some = DenseOperator({"group": S + 0.01 * random_matrices(20, 60)})
    op.parts, op.products = [some] * LOOK_PARTS, 0
    found = lanczos(op, ["group"], tolerance=1e-3)["group"]
    assert some.products == LOOK_STEPS
    assert found.matvecs == op.products < alone - 2
    check(S, found, 1e-3)
    op.parts, op.products = [some] * (LOOK_PARTS - 1), 0
    assert lanczos(op, ["group"], tolerance=1e-3)["group"].matvecs == alone


def test_lanczos_starts_in_the_directions_that_the_matrices_of_a_group_share():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2000, 120, dtype=torch.float64, generator=generator) / torch.arange(1, 121).sqrt()
    weights = torch.randn(30, 2000, dtype=torch.float64, generator=generator)
    whole = torch.einsum("nx,xi,xj->nij", weights, inputs, inputs)
    part = torch.einsum("nx,xi,xj->nij", weights[:, :125], inputs[:125], inputs[:125])
    op = DenseOperator({"group": whole})
    alone = lanczos(op, ["group"])["group"].matvecs
    op.parts = [DenseOperator({"group": part})] * LOOK_PARTS
    together = lanczos(op, ["group"])["group"]
    check(whole, together, TOLERANCE)
    one_by_one = DenseOperator({str(i): S[None] for i, S in enumerate(whole)})
    one_by_one.parts = [DenseOperator({str(i): S[None] for i, S in enumerate(part)})] * LOOK_PARTS
    of_one = max(found.matvecs for found in lanczos(one_by_one, list(one_by_one.shapes)).values())
    assert together.matvecs < min(alone, of_one)


def test_lanczos_finds_what_the_minibatch_that_it_looks_at_does_not_have():
    S = random_matrices(4, 20)
    op = DenseOperator({"group": S})
    op.parts = [DenseOperator({"group": torch.zeros_like(S)})] * LOOK_PARTS
    check(S, lanczos(op, ["group"], tolerance=1e-9)["group"], 1e-9)


def test_what_has_not_converged_is_reported():
    S = torch.stack([random_matrices(1, 20)[0], torch.zeros(20, 20, dtype=torch.float64)])
    found = lanczos(DenseOperator({"group": S}), ["group"], tolerance=1e-3, max_steps=4)["group"]
    assert found.converged.tolist() == [False, True]
    assert found.residual_max[0] > 1e-3
    assert found.matvecs == 4


def test_lanczos_bounds_are_inside_the_spectrum():
    S = random_matrices(6, 30)
    values = torch.linalg.eigvalsh(S)
    found = lanczos(DenseOperator({"group": S}), ["group"], tolerance=1e-9, max_steps=5)["group"]
    assert (found.lambda_min >= values[:, 0]).all()
    assert (found.lambda_max <= values[:, -1]).all()


def test_lanczos_stops_when_everything_has_converged():
    op = DenseOperator({"one": with_eigenvalues(*[2.0] * 6), "many": random_matrices(3, 25)})
    found = lanczos(op, ["one", "many"], tolerance=1e-6)
    assert found["one"].matvecs == 1
    assert found["one"].converged.all()
    assert found["many"].matvecs == op.products <= 25
    assert lanczos(op, ["one"], tolerance=0.5)["one"].matvecs == 1


def test_dead_neurons_have_a_zero_spectrum_without_nan():
    for solver in ("exact", "lanczos"):
        found = spectrum(DenseOperator({"group": MATRICES["zero"]}), solver)["group"]
        zero = torch.zeros(3, dtype=torch.float64)
        for value in (found.lambda_min, found.lambda_max, found.residual_min, found.residual_max):
            assert torch.equal(value, zero)
        assert found.converged.all()
        assert not found.v_min.isnan().any()


def test_auto_takes_the_cheaper_solver_for_each_group():
    small, large = random_matrices(3, SMALL), random_matrices(3, SMALL + 10)
    op = DenseOperator({"large": large, "small": small})
    found = spectrum(op, "auto", tolerance=1e-6)
    assert list(found) == ["large", "small"]
    for name, expected in (("small", exact(op, "small", 1e-6)), ("large", lanczos(op, ["large"], 1e-6)["large"])):
        assert_same_bits(found[name], expected)


def test_the_number_of_steps_is_limited():
    op = DenseOperator({"group": random_matrices(2, 200)})
    assert lanczos(op, ["group"], tolerance=1e-14)["group"].matvecs == LANCZOS_STEPS == op.products


@pytest.mark.parametrize("solver", ["exact", "lanczos", "rayleigh"])
def test_the_same_seed_gives_the_same_bits(solver):
    op = DenseOperator({"group": random_matrices(4, 15)})
    first, second = (spectrum(op, solver, seed=7)["group"] for _ in range(2))
    assert_same_bits(first, second)
    if solver != "exact":
        assert not torch.equal(first.v_min, spectrum(op, solver, seed=8)["group"].v_min)


@pytest.mark.parametrize("solver", ["exact", "lanczos", "rayleigh"])
def test_the_random_state_is_untouched(solver):
    before = torch.get_rng_state()
    spectrum(DenseOperator({"group": random_matrices(2, 5)}), solver)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", ["exact", "lanczos", "rayleigh"])
def test_results_keep_the_dtype(solver, dtype):
    S = random_matrices(3, 8, dtype=dtype)
    found = spectrum(DenseOperator({"group": S}), solver)["group"]
    assert {found.lambda_min.dtype, found.v_min.dtype, found.residual_max.dtype, found.v_max.dtype} == {dtype}


def test_lanczos_in_float32():
    S = random_matrices(5, 40, dtype=torch.float32)
    found = lanczos(DenseOperator({"group": S}), ["group"], tolerance=1e-4, max_steps=40)["group"]
    low, high = true_residuals(S, found)
    assert torch.maximum(low, high).max() < 2e-4
    assert found.converged.all()
    torch.testing.assert_close(found.lambda_min, torch.linalg.eigvalsh(S)[:, 0], rtol=1e-3, atol=0)


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


@pytest.mark.parametrize("name", ["conv-bn-silu", "separable-relu6", "residual-silu"])
def test_solvers_agree_on_a_network(name):
    run = measured(BY_NAME[name])
    found = spectrum(run.op, "lanczos", tolerance=1e-7)
    for group, expected in run.spectrum.items():
        check(run.op.dense(group), found[group], 1e-7)
        torch.testing.assert_close(found[group].lambda_min, expected.lambda_min, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(found[group].lambda_max, expected.lambda_max, rtol=1e-4, atol=1e-8)


def test_rayleigh_takes_the_parts_of_a_real_operator():
    found = spectrum(measured(BY_NAME["mlp-tanh"]).op, "rayleigh", epochs=2)
    assert {name: s.v_min.shape for name, s in found.items()} == {"0": (5, 5), "2": (4, 6)}
    assert found["0"].matvecs == 2 * 1 * 2 + 2


def test_an_unknown_solver_is_refused():
    with pytest.raises(ConfigError, match="solver: expected one of auto, exact, lanczos, rayleigh, got 'power'"):
        spectrum(DenseOperator({"group": MATRICES["zero"]}), "power")


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, float("nan")])
def test_a_tolerance_outside_zero_and_one_is_refused(tolerance):
    with pytest.raises(ConfigError, match="tolerance: expected a number between 0 and 1, got"):
        spectrum(DenseOperator({"group": MATRICES["zero"]}), tolerance=tolerance)


@pytest.mark.parametrize("solver", ["exact", "lanczos"])
def test_matrices_that_are_no_numbers_are_refused(solver):
    broken = random_matrices(3, 5)
    broken[1, 2, 2] = float("nan")
    with pytest.raises(ModelError, match="group: expected finite splitting matrices, got others; has training diverge"):
        spectrum(DenseOperator({"group": broken}), solver)


def test_no_epochs_are_refused():
    with pytest.raises(ConfigError, match="epochs: expected a whole number >= 1, got 0"):
        spectrum(DenseOperator({"group": MATRICES["zero"]}), "rayleigh", epochs=0)
