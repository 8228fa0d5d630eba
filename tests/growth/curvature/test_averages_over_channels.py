"""Averages over channels are written with means as PyTorch computes them, and their curvature is that of splits."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.averages_over_channels import written_with_means
from tests.cases import check_operator
from tests.wide import Net, Number, linears, sample

X, W, B = sample(5, 4, 3, 2), sample(4), sample(4) + 1


def mean(input, dim, keepdim):
    return torch.mean(input, dim, keepdim)


CALLS = {
    "mean": (torch.mean, (X, (1, 2)), {}),
    "mean of another type": (torch.mean, (X.float(),), {"dim": 1, "keepdim": True, "dtype": torch.float64}),
    "mean of everything": (torch.mean, (X,), {}),
    "axis": (torch.mean, (X,), {"axis": 1}),
    "layer norm": (F.layer_norm, (X, (3, 2)), {}),
    "layer norm by keywords": (F.layer_norm, (X.movedim(1, -1),), {"normalized_shape": (4,), "weight": W, "bias": B}),
    "group norm": (F.group_norm, (X, 2, W, B, 0.1), {}),
    "group norm of vectors": (F.group_norm, (X[..., 0, 0], 2), {}),
    "root mean square norm": (F.rms_norm, (X.movedim(1, -1), (4,), W), {}),
    "root mean square norm, eps": (F.rms_norm, (X, (2,)), {"eps": 0.1}),
    "variance": (torch.var, (X, 1, False), {}),
    "variance that keeps dimensions": (torch.var, (X, 1, False, True), {}),
    "variance by keywords": (torch.var, (X,), {"dim": (1, 2), "correction": 0, "keepdim": True}),
    "variance of everything": (torch.var, (X, False), {}),
    "deviation": (torch.std, (X, 1), {"unbiased": False}),
    "variance and mean": (torch.var_mean, (X, 1), {"correction": 0}),
    "deviation and mean": (torch.std_mean, (X,), {"dim": -1, "correction": 0, "keepdim": True}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_values_are_those_of_pytorch(name):
    function, args, kwargs = CALLS[name]
    torch.testing.assert_close(
        written_with_means(function.__name__, mean, args, kwargs), function(*args, **kwargs), rtol=1e-12, atol=1e-12
    )


NETWORKS = {
    "root mean square norm": (
        lambda m, x: m.b(m.scale * (h := m.a(x)) * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 0.1)),
        linears((3, 4), (4, 3)) | {"scale": Number(4)},
    ),
    "layer norm": (
        lambda m, x: m.b(((h := m.a(x)) - h.mean(-1, True)) / (h.var(-1, False, True) + 0.1).sqrt()),
        linears((3, 4), (4, 3)),
    ),
    "a mean that gates": (lambda m, x: m.b((h := m.a(x).tanh()) * h.mean(-1, True)), linears((3, 4), (4, 3))),
    "a mean and another reader": (
        lambda m, x: m.b(h := m.a(x).sigmoid()) * h.std(-1, correction=0, keepdim=True),
        linears((3, 4), (4, 3)),
    ),
    "a mean that alone reads them": (
        lambda m, x: m.b(m.a(x).view(len(x), 2, -1).tanh().mean(2)),
        linears((3, 4), (2, 3)),
    ),
    "a weight that is computed": (
        lambda m, x: m.b(F.layer_norm(m.a(x), (m.scale.shape[0],), m.scale.exp())),
        linears((3, 4), (4, 3)) | {"scale": Number(4)},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_matrices_are_those_of_a_network_whose_neurons_are_split(name):
    model = Net(NETWORKS[name][0], **NETWORKS[name][1]).double().eval()
    x, y = sample(6, 3), torch.arange(6) % 3
    graph = s3d.trace(model, x)
    assert graph["a"].splittable
    op = s3d.SplittingOperator(model, graph, [(x, y)], F.cross_entropy)
    plain = s3d.PlainSplittingOperator(model, graph, [(x, y)], F.cross_entropy)
    torch.testing.assert_close(op.dense("a"), plain.dense("a"), rtol=1e-9, atol=1e-14)
    spectrum = s3d.spectrum(op, "exact")
    plan = s3d.plan_from_copies(graph, {"a": torch.full((4,), 2)}, spectrum)
    losses = [F.cross_entropy(s3d.split(model, graph, plan, e).model(x), y).item() for e in (0.0, 1e-3)]
    assert plan.gain < 0
    assert losses[1] - losses[0] == pytest.approx(5e-7 * plan.gain, rel=1e-3)


def test_the_matrices_of_a_written_norm_by_the_hessian_of_the_split_network():
    torch.manual_seed(0)

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = torch.tanh(self.a(x))
            return self.b(x * (x.pow(2).mean(-1, keepdim=True) + 0.1).rsqrt())

    check_operator(Written().double().eval(), sample(6, 3), torch.arange(6) % 3)
