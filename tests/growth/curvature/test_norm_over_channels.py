"""Norms over channels against the Hessian of a network in which every neuron is split in two."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature import cut
from nni_s3d.growth.curvature.norm_over_channels import is_usual
from tests.cases import check_operator, matrices_of
from tests.wide import sample


def drawn(norm: nn.Module) -> nn.Module:
    """Return a norm with random weights."""
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm


class Last(nn.Module):
    """Puts channels last for a norm over the last dimension."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def network(norm: nn.Module, act: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    first, middle = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    rest = (drawn(norm), middle, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(first, act, *rest).double().eval()


NORMS = {
    "layer norm": lambda: Last(nn.LayerNorm(4)),
    "root mean square norm": lambda: Last(nn.RMSNorm(4)),
    "root mean square norm without eps": lambda: Last(nn.RMSNorm(4, eps=None)),
    "group norm": lambda: nn.GroupNorm(2, 4, eps=0.1),
    "group norm of all channels": lambda: nn.GroupNorm(1, 4),
    "group norm without weights": lambda: nn.GroupNorm(2, 4, affine=False),
}
BATCH = (sample(4, 2, 5, 5), torch.arange(4) % 3)


@pytest.mark.parametrize("act", [nn.Identity, nn.SiLU], ids=["bare", "behind an activation"])
@pytest.mark.parametrize("name", NORMS)
def test_the_matrices_are_those_of_a_network_whose_neurons_are_split(name, act, monkeypatch):
    model = network(NORMS[name](), act())
    check_operator(model, *BATCH)
    matrices = matrices_of(model, BATCH)
    monkeypatch.setattr(cut, "is_usual", lambda *_: False)  # written with means
    for found, expected in zip(matrices, matrices_of(model, BATCH), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def test_a_norm_over_vectors():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), drawn(nn.LayerNorm(4)), nn.Linear(4, 4), nn.GroupNorm(2, 4))
    check_operator(nn.Sequential(*model, nn.Linear(4, 3)).double().eval(), sample(6, 2), torch.arange(6) % 3)


def test_a_norm_before_and_behind_others():
    torch.manual_seed(0)
    norms = [drawn(nn.LayerNorm(4)) for _ in range(3)]
    model = nn.Sequential(nn.Linear(2, 4), norms[0], nn.SiLU(), norms[1], nn.Tanh(), norms[2], nn.Linear(4, 3))
    check_operator(model.double().eval(), sample(6, 2), torch.arange(6) % 3)


def test_a_norm_of_positions_is_none_over_channels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.LayerNorm(5), nn.Tanh(), nn.Flatten(), nn.Linear(15, 3))
    check_operator(model.double().eval(), sample(4, 2, 5), torch.arange(4) % 3)


def test_what_is_recorded_as_a_norm():
    x, weight = torch.randn(2, 3), torch.ones(3)
    assert is_usual("layer_norm", (x, (3,), nn.Parameter(weight)), {})
    assert not is_usual("layer_norm", (x, (3,)), {"weight": weight.requires_grad_() * 2})
    assert not is_usual("rms_norm", (), {"input": x, "normalized_shape": (3,)})
    assert not is_usual("mean", (x, 1), {})


def test_it_needs_gradients():
    class Without(nn.Sequential):
        def forward(self, x):
            with torch.no_grad():
                x = self[1](self[0](x))
            return self[2](x)

    model, x = Without(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), torch.randn(5, 3)
    graph = s3d.trace(model, x)
    with pytest.raises(s3d.ModelError, match="layer_norm: expected a layer with gradients, got one under no_grad"):
        s3d.SplittingOperator(model, graph, [(x, torch.randn(5, 2))], F.mse_loss)
