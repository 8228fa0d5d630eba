import pytest
import torch

from nni_s3d import ConfigError, ModelError, spectrum
from nni_s3d.growth.eigen.exact import exact
from nni_s3d.growth.eigen.lanczos import lanczos
from nni_s3d.growth.eigen.solve import SMALL
from tests.cases import BY_NAME, measured
from tests.matrices import MATRICES, assert_same_bits, check, random_matrices
from tests.reference import DenseOperator


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("solver", ["exact", "lanczos", "auto"])
def test_both_ends_are_those_of_a_dense_decomposition(solver, name):
    S = MATRICES[name]
    found = spectrum(DenseOperator({"group": S}), solver, tolerance=1e-9)["group"]
    check(S, found, 1e-9)


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


@pytest.mark.parametrize("name", ["conv-bn-silu", "separable-relu6", "residual-silu"])
def test_solvers_agree_on_a_network(name):
    run = measured(BY_NAME[name])
    found = spectrum(run.op, "lanczos", tolerance=1e-7)
    for group, expected in run.spectrum.items():
        check(run.op.dense(group), found[group], 1e-7)
        torch.testing.assert_close(found[group].lambda_min, expected.lambda_min, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(found[group].lambda_max, expected.lambda_max, rtol=1e-4, atol=1e-8)


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
    with pytest.raises(
        ModelError, match="group: expected finite splitting matrices, got infinity or NaN; has training diverge"
    ):
        spectrum(DenseOperator({"group": broken}), solver)


def test_no_epochs_are_refused():
    with pytest.raises(ConfigError, match="epochs: expected a whole number >= 1, got 0"):
        spectrum(DenseOperator({"group": MATRICES["zero"]}), "rayleigh", epochs=0)
