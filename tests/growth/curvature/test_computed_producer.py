"""Splitting matrices of neurons whose weights are computed, against their definition and an actual split."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm as weight_norm_by_hook
from torch.nn.utils.parametrizations import weight_norm

import nni_s3d as s3d
from tests.growth.graph.test_weight_parts import LowRank, Masked, Standardised

ACTIVATIONS = {"smooth": nn.SiLU, "linear": nn.Identity}
PRODUCERS = {
    "weight norm": (lambda: weight_norm(nn.Linear(3, 4)), (3,)),
    "weight norm of a convolution": (lambda: weight_norm(nn.Conv2d(3, 4, 2)), (3, 4, 4)),
    "weight norm by a hook": (lambda: weight_norm_by_hook(nn.Linear(3, 4)), (3,)),
    "standardised with a gain": (lambda: Standardised(gain=True), (3, 4, 4)),
    "low rank": (LowRank, (3,)),
    "masked": (Masked, (3,)),
}


def network(name: str, activation: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = PRODUCERS[name]
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if len(shape) > 1 else []
    model = nn.Sequential(make(), ACTIVATIONS[activation](), *pooled, nn.Linear(4, 3)).double().eval()
    return model, torch.randn(8, *shape, dtype=torch.float64), torch.randint(3, (8,))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", PRODUCERS)
def test_matrices_are_those_of_their_definition(name, activation):
    model, x, targets = network(name, activation)
    graph = s3d.trace(model, x)
    op, plain = (
        operator(model, graph, [(x, targets)], F.cross_entropy)
        for operator in (s3d.SplittingOperator, s3d.PlainSplittingOperator)
    )
    (group,) = op.shapes
    expected = plain.dense(group)
    torch.testing.assert_close(op.dense(group), expected, rtol=1e-10, atol=1e-14)
    if activation == "smooth":
        assert float(expected.detach().abs().max()) > 1e-6


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", PRODUCERS)
def test_a_split_changes_the_loss_as_predicted(name):
    model, x, targets = network(name, "smooth")
    graph = s3d.trace(model, x)
    op = s3d.SplittingOperator(model, graph, [(x, targets)], F.cross_entropy)
    plan = s3d.select(s3d.spectrum(op), graph, s3d.TopFraction(1.0))
    assert plan.gain < 0
    epsilon = 1e-3
    with torch.no_grad():
        before = F.cross_entropy(model(x), targets)
        after = F.cross_entropy(s3d.split(model, graph, plan, epsilon).model(x), targets)
    assert float(after - before) == pytest.approx(epsilon**2 / 2 * plan.gain, rel=0.01)
