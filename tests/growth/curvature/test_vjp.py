import subprocess
import sys
import weakref

import pytest
import torch

from nni_s3d.growth.curvature.vjp import Vjp

PROGRAM = """
import sys, torch, nni_s3d
layers = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.SiLU(), torch.nn.MaxPool2d(2), torch.nn.Softmax(2)
model = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 4, 3), torch.nn.ReLU(), torch.nn.Flatten()).eval()
batch = torch.randn(6, 3, 12, 12), torch.randint(36, (6,))
op = nni_s3d.SplittingOperator(model, nni_s3d.trace(model, batch[0]), [batch], torch.nn.functional.cross_entropy)
nni_s3d.spectrum(op)
sys.exit("sympy" in sys.modules)
"""


@pytest.fixture
def leaves():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)]


def outputs_of(leaves):
    x, y, _ = leaves
    return [x**3, (x * y).sin()]


def cotangents():
    return [torch.tensor([1.0, -2, 3], dtype=torch.float64), torch.tensor([0.5, 0, 2], dtype=torch.float64)]


@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True), (False, False)])
def test_it_is_autograds_backward_pass(leaves, given):
    some = [c if there else None for c, there in zip(cotangents(), given, strict=True)]
    vjp = Vjp(outputs_of(leaves))
    pairs = [(y, c) for y, c in zip(outputs_of(leaves), some, strict=True) if c is not None]
    expected = [None] * 3
    if pairs:
        outputs, weights = zip(*pairs, strict=True)
        expected = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
    for _ in range(2):
        for found, wanted in zip(vjp(some, leaves), expected, strict=True):
            assert (found is None and wanted is None) or torch.equal(found, wanted)


def test_it_can_be_differentiated(leaves):
    some = [c.requires_grad_() for c in cotangents()]
    found, *_ = Vjp(outputs_of(leaves))(some, leaves, create_graph=True)
    x, y, _ = leaves
    expected = 3 * x**2 * some[0] + y * (x * y).cos() * some[1]
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), [x, y, *some]), torch.autograd.grad(expected.sum(), [x, y, *some]), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_nothing_comes_of_no_outputs(leaves):
    assert Vjp([])([], leaves) == [None] * 3


def test_it_holds_nothing_longer_than_needed(leaves):
    outputs, some = outputs_of(leaves), cotangents()
    vjp = Vjp(outputs)
    values, weights = [weakref.ref(x) for x in outputs], [weakref.ref(c) for c in some]
    vjp(some, leaves)
    del outputs, some
    assert [ref() for ref in (*values, *weights)] == [None] * 4
    graph = weakref.ref(vjp._edge.node)
    del vjp
    assert graph() is None


def test_measuring_imports_no_symbolic_shapes():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
