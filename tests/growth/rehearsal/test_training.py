import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.rehearsal.training import as_if_training, asks_for_training, outputs_in_training
from tests import reference


class Trained(nn.Module):
    """Something that is done only while the network is trained."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self._forward = forward
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x) if self.training else x


class WithGradients(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 8) if torch.is_grad_enabled() else x


class DropPath(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(len(x), 1) if self.training else x


class Inherits(Trained):
    pass


class Comprehension(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return sum([x for _ in range(2) if self.training], x)


def kept_mean(module: nn.Module, x: Tensor) -> Tensor:
    module.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
    return x


def codebook(module: nn.Module, x: Tensor) -> Tensor:
    distance = (x.detach()[:, None] - module.mean[None, None]).square().sum(-1)
    return x + 0 * distance


def net(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 8), nn.Tanh(), middle, nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("middle", "asks"),
    [
        (nn.Dropout(), False),
        (nn.BatchNorm1d(8), False),
        (nn.MultiheadAttention(8, 2), False),
        (DropPath(), False),
        (Trained(kept_mean), True),
        (Inherits(kept_mean), True),
        (WithGradients(), True),
        (Comprehension(), True),
    ],
)
def test_code_that_asks_for_the_mode_is_found(middle, asks):
    assert asks_for_training(nn.Sequential(middle)) == asks


def test_all_believe_that_they_are_trained_but_norms_and_dropout():
    model = net(Trained(kept_mean)).append(nn.BatchNorm1d(3)).append(nn.Dropout()).eval()
    model[0].train()
    with reference.untouched(model), as_if_training(model):
        assert [module.training for module in model] == [True] * 6 + [False] * 2
        model(torch.randn(4, 5))
        assert model[4].mean.abs().max() > 0


def test_outputs_are_the_same_for_the_same_network():
    model = net(Trained(lambda m, x: F.dropout(x + torch.randn(1, 8)))).eval()
    x = torch.randn(4, 5)
    first, again = outputs_in_training(model, x), outputs_in_training(model, x)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], model(x))


REFUSED = {
    "a mean that is kept": (kept_mean, r"fails when it grows: add in 4 .* meets 4.mean, of shape \(8,\), which .*"),
    "a code book": (codebook, "fails when it grows: .*"),
    "noise of a width that is a number": (lambda m, x: x + torch.randn(len(x), 8), "fails when it grows: add in 4 .*"),
    "a shape": (lambda m, x: x.view(-1, 8), r"\w+ .* when it grows: view in 4 .* is given the sizes \(-1, 8\) .*"),
    "a width used as a number": (lambda m, x: x * x.shape[1], ".* uses a width as a number; .*"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_training_does_is_tried(name):
    forward, reason = REFUSED[name]
    model, x = net(Trained(forward)).eval(), torch.randn(4, 5)
    with reference.untouched(model):
        graph = s3d.trace(model, x)
    assert set(graph.widths) == {"0"}
    assert graph["2"].reason.startswith("in training mode the model ")
    assert re.search(reason, graph["2"].reason), graph["2"].reason


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: x + 0.1 * torch.randn_like(x),
        lambda m, x: x * torch.rand(len(x), 1),
        lambda m, x: F.dropout(x, 0.3),
        lambda m, x: x * 2,
        lambda m, x: x[torch.randperm(len(x))],
    ],
)
def test_what_training_does_is_no_reason_if_the_grown_network_can_be_trained(forward):
    model, x = net(Trained(forward)).eval(), torch.randn(4, 5)
    graph = s3d.trace(model, x)
    assert set(graph.widths) == {"0", "2"}
    plan = s3d.plan_from_copies(graph, {"2": torch.tensor([2, 1, 1, 3, 1, 1, 1, 1])})
    s3d.split(model, graph, plan).model.train()(x).sum().backward()


def test_what_gradients_do_is_tried():
    assert set(s3d.trace(net(WithGradients()).eval(), torch.randn(4, 5)).widths) == {"0"}


def test_a_network_that_cannot_be_run_as_if_it_were_trained_is_not():
    def wants_targets(module: nn.Module, x: Tensor) -> Tensor:
        raise ValueError("targets should not be none when in training mode")

    assert set(s3d.trace(net(Trained(wants_targets)).eval(), torch.randn(4, 5)).widths) == {"0", "2"}
