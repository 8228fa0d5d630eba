"""Kinks that are written with a comparison have the values and the curvature of those that are written with relu."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Net, check_refused, expect_reason, linears, sample

WAYS = {  # a kink by a comparison, and the same by a function
    "a product": (lambda h: h * (h > 0), F.relu),
    "a product from the left": (lambda h: (h >= 0).to(h) * h, F.relu),
    "below": (lambda h: h * (h < 0).double(), lambda h: h.clamp(max=0)),
    "not below": (lambda h: h * ~(h < 0), F.relu),
    "where": (lambda h: torch.where(h > 0, h, 0.1 * h), lambda h: F.leaky_relu(h, 0.1)),
    "where of zeros": (lambda h: torch.where(h > 0, h, torch.zeros_like(h)), F.relu),
    "where of a number": (lambda h: torch.where(h > 0.5, 0.5, h), lambda h: h.clamp(max=0.5)),
    "where of a tensor with a number": (lambda h: torch.where(h > 0, h, torch.tensor(0.0).to(h)), F.relu),
    "the method": (lambda h: h.where(h > 0.2, h.new_tensor(0.2)), lambda h: h.clamp(min=0.2)),
    "an absolute value": (lambda h: torch.where(h > 0, h, -h), torch.abs),
    "several numbers": (
        lambda h: torch.where(h > 1, 1 + (h - 1) / 2, h),
        lambda h: h - F.relu(h - 1) / 2,
    ),
    "masked_fill": (lambda h: h.masked_fill(h < 0, 0.0), F.relu),
}


def chain(kink) -> nn.Module:
    torch.manual_seed(0)
    return Net(lambda m, x: m.b(kink(m.a(x))), **linears((4, 5), (5, 3))).double()


@pytest.mark.parametrize("way", WAYS)
def test_values_and_matrices_are_those_of_the_function(way):
    batch, results = (sample(7, 4), torch.arange(7) % 3), []
    for kink in WAYS[way]:
        model = chain(kink)
        graph = s3d.trace(model, batch[0])
        assert graph.widths == {"a": 5}
        op = s3d.SplittingOperator(model, graph, [batch], F.cross_entropy)
        plain = s3d.PlainSplittingOperator(model, graph, [batch], F.cross_entropy)
        results.append((model(batch[0]), op.dense("a"), plain.dense("a")))
        torch.testing.assert_close(results[-1][1], results[-1][2])
        plan = s3d.plan_from_copies(graph, {"a": torch.tensor([1, 2, 3, 1, 2])}, c=2.0)
        torch.testing.assert_close(s3d.split(model, graph, plan, epsilon=0).model(batch[0]), model(batch[0]))
    assert results[1][1].abs().max() > 1e-3
    torch.testing.assert_close(*results)


def changed(h):
    mask = h > 0
    h.add_(1)
    return h * mask


REFUSED = {
    "a jump": (lambda h: torch.where(h > 0, h, h + 1), "where"),
    "a mask alone": (lambda h: h + (h > 0), "add"),
    "a mask of another tensor": (lambda h: torch.sigmoid(h) * (h > 0), "mul"),
    "a curve": (lambda h: torch.where(h > 0, h, torch.expm1(h)), "where"),
    "what has changed since": (changed, "mul"),
    "a product in place": (lambda h: h.mul_(h > 0), "mul"),
    "a mask that is counted": (lambda h: h * (h > 0).sum(), "sum"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_comparisons_are_refused(name):
    kink, function = REFUSED[name]
    reason = f"{function} takes a comparison of its channels"
    check_refused(lambda m, x: m.b(kink(m.a(x))), linears((4, 5), (5, 3)), (6, 4), reason)


def test_a_mask_that_is_an_output_is_refused():
    model = Net(lambda m, x: (m.b((h := m.a(x)).tanh()), h > 0), **linears((4, 5), (5, 3))).double()
    expect_reason(s3d.trace(model, sample(6, 4))["a"], "an output of the network takes a comparison of its channels")
