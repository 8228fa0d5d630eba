"""What must hold of every network with registered functions or layers, and small networks to try them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Net, sample


class Case(NamedTuple):
    """A network, the shape of its input, and the widths that a trace of it must find."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    widths: dict[str, int]


def net(forward: Callable[..., object], **modules: nn.Module) -> nn.Module:
    return Net(forward, **modules).double().eval()


def linears() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": nn.Linear(4, 5), "b": nn.Linear(5, 3)}


def check_widths(case: Case) -> None:
    assert s3d.trace(case.build(), sample(*case.shape)).widths == case.widths


def check_unmoved_split(case: Case) -> None:
    """Expect that a split that does not move changes nothing, and costs what the cost model says."""
    model, inputs = case.build(), sample(*case.shape)
    graph = s3d.trace(model, inputs)
    copies = {group.name: torch.arange(group.width) % 3 + 1 for group in graph.splittable_groups}
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=2.5), epsilon=0)
    torch.testing.assert_close(result.model(inputs), model(inputs), rtol=0, atol=1e-10)
    assert s3d.trace(result.model, inputs).widths == result.widths
    assert s3d.count(s3d.trace(result.model, inputs)) == s3d.count(graph, graph.per_channel(copies))


@torch.no_grad()
def check_predicted_change(case: Case) -> None:
    """Expect that the predicted change of the loss is the measured one."""
    torch.manual_seed(1)
    model, inputs = case.build(), sample(*case.shape)
    targets = torch.randint(2, (len(inputs),), generator=torch.Generator().manual_seed(4))
    graph = s3d.trace(model, inputs)
    op = s3d.SplittingOperator(model, graph, [(inputs, targets)], F.cross_entropy)
    copies = {group.name: torch.full((group.width,), 2) for group in graph.splittable_groups}
    plan = s3d.plan_from_copies(graph, copies, s3d.spectrum(op, "exact"), c=3.0)
    epsilon = 1e-3
    grown = s3d.split(model, graph, plan, epsilon).model
    change = float(F.cross_entropy(grown(inputs), targets) - F.cross_entropy(model(inputs), targets))
    assert plan.gain < 0
    assert change == pytest.approx(epsilon**2 / 2 * plan.gain, rel=2e-2)


def check_twin(case: Case, twin: nn.Module, transposed: bool = False) -> None:
    """Expect the costs and splitting matrices of a network of PyTorch's layers, perhaps stored transposed."""
    model, twin = case.build(), twin.double()
    for registered, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.data = (registered.data.mT if transposed and registered.dim() == 2 else registered.data).clone()
    batch = sample(*case.shape), torch.tensor([0, 1, 2, 0, 1, 2])
    costs_and_matrices = []
    for network in (model, twin):
        graph = s3d.trace(network, batch[0])
        op = s3d.SplittingOperator(network, graph, [batch], F.cross_entropy)
        cost, matrices = s3d.count(graph), [op.dense(group.name) for group in graph.splittable_groups]
        costs_and_matrices.append([cost.params, cost.macs, matrices])
    torch.testing.assert_close(*costs_and_matrices)
