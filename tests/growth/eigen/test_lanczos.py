import pytest
import torch

from nni_s3d.growth.eigen.lanczos import LANCZOS_STEPS, WARM_START_PARTS, WARM_START_STEPS, lanczos
from nni_s3d.growth.eigen.spectrum import TOLERANCE
from tests.matrices import MATRICES, check, random_matrices, true_residuals, with_eigenvalues
from tests.reference import DenseOperator


@pytest.mark.parametrize("name", MATRICES)
def test_lanczos_at_the_usual_tolerance(name):
    S = MATRICES[name]
    found = lanczos(DenseOperator({"group": S}), ["group"])["group"]
    check(S, found, TOLERANCE)


def test_lanczos_looks_at_one_of_many_minibatches_first():
    S = with_eigenvalues(*torch.linspace(-1, 1, 60).sign() * torch.linspace(-1, 1, 60).square(), n=20)
    op = DenseOperator({"group": S})
    alone = lanczos(op, ["group"], tolerance=1e-3)["group"].matvecs
    some = DenseOperator({"group": S + 0.01 * random_matrices(20, 60)})
    op.parts, op.products = [some] * WARM_START_PARTS, 0
    found = lanczos(op, ["group"], tolerance=1e-3)["group"]
    assert some.products == WARM_START_STEPS
    assert found.matvecs == op.products < alone - 2
    check(S, found, 1e-3)
    op.parts, op.products = [some] * (WARM_START_PARTS - 1), 0
    assert lanczos(op, ["group"], tolerance=1e-3)["group"].matvecs == alone


def test_lanczos_starts_in_the_directions_that_the_matrices_of_a_group_share():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2000, 120, dtype=torch.float64, generator=generator) / torch.arange(1, 121).sqrt()
    weights = torch.randn(30, 2000, dtype=torch.float64, generator=generator)
    whole = torch.einsum("nx,xi,xj->nij", weights, inputs, inputs)
    part = torch.einsum("nx,xi,xj->nij", weights[:, :125], inputs[:125], inputs[:125])
    op = DenseOperator({"group": whole})
    alone = lanczos(op, ["group"])["group"].matvecs
    op.parts = [DenseOperator({"group": part})] * WARM_START_PARTS
    together = lanczos(op, ["group"])["group"]
    check(whole, together, TOLERANCE)
    one_by_one = DenseOperator({str(i): S[None] for i, S in enumerate(whole)})
    one_by_one.parts = [DenseOperator({str(i): S[None] for i, S in enumerate(part)})] * WARM_START_PARTS
    of_one = max(found.matvecs for found in lanczos(one_by_one, list(one_by_one.shapes)).values())
    assert together.matvecs < min(alone, of_one)


def test_lanczos_finds_what_the_minibatch_that_it_looks_at_does_not_have():
    S = random_matrices(4, 20)
    op = DenseOperator({"group": S})
    op.parts = [DenseOperator({"group": torch.zeros_like(S)})] * WARM_START_PARTS
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


def test_the_number_of_steps_is_limited():
    op = DenseOperator({"group": random_matrices(2, 200)})
    assert lanczos(op, ["group"], tolerance=1e-14)["group"].matvecs == LANCZOS_STEPS == op.products


def test_lanczos_in_float32():
    S = random_matrices(5, 40, dtype=torch.float32)
    found = lanczos(DenseOperator({"group": S}), ["group"], tolerance=1e-4, max_steps=40)["group"]
    low, high = true_residuals(S, found)
    assert torch.maximum(low, high).max() < 2e-4
    assert found.converged.all()
    torch.testing.assert_close(found.lambda_min, torch.linalg.eigvalsh(S)[:, 0], rtol=1e-3, atol=0)
