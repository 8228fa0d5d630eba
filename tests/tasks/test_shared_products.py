from dataclasses import replace

import pytest
import torch

from nni_s3d.errors import ModelError
from nni_s3d.growth.eigen.solve import spectrum
from nni_s3d.growth.trace import trace
from nni_s3d.tasks import ranks
from nni_s3d.tasks.shared_products import SharedOperator, splitting_operator
from nni_s3d.tasks.task import read_task
from nni_s3d.tasks.together import together
from tests import small_task
from tests.processes import side_by_side

WIDTHS = dict.fromkeys(small_task.NAMES, 3)


@pytest.fixture
def task(tmp_path):
    """Batches of 8, 8, ... and one sample, of which the second process has none."""
    model = {"factory": "tests.factories:mobilenet_in_float64", "image_size": 8, "num_classes": 10, "in_channels": 1}
    small_task.write(tmp_path, {"model": model, "curvature": {"samples": 41, "batch_size": 8}})
    return read_task(tmp_path / "task.yml")


def measured(task, look, widths=WIDTHS):
    """Return what a look at the operator of a network gives."""
    data = task.load_data()
    model = task.build_model(widths, 5, data.shape).eval()
    with torch.no_grad():
        for value in model.state_dict().values():  # unlike those that the other processes begin with
            if value.is_floating_point():
                value.mul_(1 + 0.3 * torch.rand(value.shape, generator=torch.Generator().manual_seed(1)))
    graph = trace(model, task.example(data.shape)).refuse_others([*widths][-5:], "for a change")
    with splitting_operator(task, data, model, graph, widths, smoothing=2.0, seed=5) as op:
        return look(op)


def in_two(task, look, widths=WIDTHS):
    found, nothing = side_by_side(lambda: together(task, lambda: measured(task, look, widths)), join=False)
    if isinstance(found, Exception):
        raise found
    assert nothing is None
    return found


def products(op):
    """Return products of all samples, of every fold and of every batch, matrices, and sizes."""
    generator = torch.Generator().manual_seed(0)
    vectors = {n: torch.randn(*s, generator=generator, dtype=torch.float64) for n, s in op.shapes.items()}
    several = [op, *op.folds, *op.parts]
    found = [product.tolist() for one in several for product in one.matvec(vectors).values()]
    return type(op).__name__, found, op.dense("pw2").tolist(), [one.samples for one in several], op.passes


@pytest.mark.parametrize("memory", [1.0, 0.0])
def test_products_are_those_of_one_process(task, memory):
    task = replace(task, curvature=replace(task.curvature, memory=memory))
    kind, *found = in_two(task, products)
    alone, *expected = measured(task, products)
    assert (kind, alone) == ("SharedOperator", "SplittingOperator")
    torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(expected[1]), rtol=1e-9, atol=1e-12)
    for mine, whole in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(whole), rtol=1e-9, atol=1e-12)
    assert found[2] == expected[2]
    assert found[3] == pytest.approx(expected[3], rel=0.2)  # the first process has a little more than half


@pytest.mark.parametrize("solver", ["auto", "exact", "rayleigh"])
def test_spectra_are_those_of_one_process(task, solver):
    def look(op):
        found = spectrum(op, solver)
        return {name: (one.lambda_min.tolist(), one.lambda_max.tolist()) for name, one in found.items()}

    found, expected = in_two(task, look), measured(task, look)
    assert found.keys() == expected.keys()
    for name, ends in expected.items():
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(ends), rtol=1e-6, atol=1e-9)


def test_every_process_multiplies_with_its_own_samples(task):
    """Or all would be right, and nothing be shared."""

    def look(op):
        return isinstance(op, SharedOperator), op._own.samples

    assert in_two(task, look) == (True, 21)


def test_samples_that_do_not_suffice_for_all_are_the_first_ones(task):
    task = replace(task, curvature=replace(task.curvature, samples=1))
    assert in_two(task, lambda op: type(op).__name__) == "SplittingOperator"


def test_another_network_is_refused(task):
    def program():
        data = task.load_data()
        weights = task.build_model(WIDTHS, 3, data.shape).state_dict()
        job = {"widths": WIDTHS, "weights": weights, "groups": ["nobody"], "smoothing": 3.0, "seed": 0}
        ranks.from_first({"multiply": job})

    _, error = side_by_side(lambda: together(task, program), join=False)
    assert isinstance(error, ModelError)
    assert "expected to split ['nobody'], as the first process, got []" in str(error)


def test_a_failure_of_the_first_process_is_all_that_is_said(task):
    def fail(op):
        raise ModelError("diverged")

    error, nothing = side_by_side(lambda: together(task, lambda: measured(task, fail)), join=False)
    assert str(error) == "diverged"
    assert nothing is None


class _OfItsSeed(torch.nn.Sequential):
    """What it draws does not stand among its weights."""

    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.Tanh(), torch.nn.Linear(4, 10))
        self.register_buffer("scale", torch.rand(10), persistent=False)

    def forward(self, x):
        return super().forward(x) * self.scale


def test_all_processes_have_the_network_of_its_seed(task):
    task, widths = replace(task, model={"factory": "tests.tasks.test_shared_products:_OfItsSeed"}), {"1": 4}

    def look(op):
        return op.dense("1").tolist()

    found, expected = in_two(task, look, widths), measured(task, look, widths)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
