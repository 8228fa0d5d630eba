"""First-order changes, against what happens when columns are multiplied by a little less than one."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import nni_s3d as s3d
from nni_s3d.growth.pruning.taylor import first_order_changes
from tests.cases import BY_NAME, CASES, measured
from tests.columns import multiply_columns
from tests.wide import WIDE, random_case

RANDOM = tuple(random_case(seed) for seed in range(40))
every_case = pytest.mark.parametrize("case", [*CASES, *WIDE, *RANDOM], ids=lambda case: case.name)
STEP = 1e-6


@torch.no_grad()
def by_differences(model, graph, batch, loss_fn):
    """Return the derivative of the loss by a factor on the columns of every channel, (channels,)."""
    changes = torch.zeros(graph.num_channels, dtype=torch.float64)
    for channel in range(graph.num_channels):
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            tensors = dict((*moved.named_parameters(), *moved.named_buffers()))
            factors = torch.ones(graph.num_channels + 1, dtype=torch.float64)
            factors[channel] += sign * STEP
            multiply_columns(tensors, graph, factors)
            losses.append(float(loss_fn(moved(batch[0]), batch[1])))
        changes[channel] = (losses[0] - losses[1]) / (2 * STEP)
    return changes


@every_case
def test_changes_are_those_of_finite_differences(case):
    run = measured(case)
    batches = [case.batch(4, seed=1), case.batch(2, seed=2)]
    found = first_order_changes(run.model, run.graph, batches, case.loss_fn)
    of_each = [by_differences(run.model, run.graph, batch, case.loss_fn).abs() for batch in batches]
    torch.testing.assert_close(found, (4 * of_each[0] + 2 * of_each[1]) / 6, rtol=1e-4, atol=1e-8)


def test_it_is_activation_times_gradient():
    case = BY_NAME["conv-bn-silu"]
    run, (x, y) = measured(case), case.batch()
    kept = {}
    handles = [run.model[n].register_forward_hook(lambda m, a, out, n=n: kept.update({n: out})) for n in (2, 5)]
    loss = case.loss_fn(run.model(x), y)
    gradients = dict(zip(kept, torch.autograd.grad(loss, list(kept.values())), strict=True))
    for handle in handles:
        handle.remove()
    found = s3d.importance(run.model, run.graph, "taylor", [(x, y)], case.loss_fn)
    for name, n in (("0", 2), ("3", 5)):
        torch.testing.assert_close(found[name], (kept[n] * gradients[n]).sum((0, 2, 3)).abs().detach())


@pytest.mark.parametrize("groups", [1, 2])
def test_rows_that_are_divided_by_their_size(groups):
    """A factor on what a consumer reads is no factor on its columns there; multiplied inputs are the oracle."""
    torch.manual_seed(0)
    middle = weight_norm(nn.Conv2d(6, 6, 2, groups=groups))
    scale = nn.Parameter(torch.ones(6))
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.SiLU(), middle, nn.SiLU(), nn.Conv2d(6, 2, 4), nn.Flatten()).double()
    x, y = torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.tensor([0, 1, 1])
    graph, loss_fn = s3d.trace(model, x), nn.CrossEntropyLoss()
    found = s3d.importance(model, graph, "taylor", [(x, y)], loss_fn)["0"]
    handle = middle.register_forward_pre_hook(lambda m, inputs: (inputs[0] * scale.double()[:, None, None],))
    (expected,) = torch.autograd.grad(loss_fn(model(x), y), [scale])
    handle.remove()
    torch.testing.assert_close(found, expected.abs().double(), rtol=1e-6, atol=1e-9)


def test_dead_neurons_are_worth_nothing():
    case = BY_NAME["mlp-relu"]
    model = case.model()
    model[0].bias.data[2] = -100
    found = s3d.importance(model, measured(case).graph, "taylor", [case.batch()], case.loss_fn)["0"]
    assert found[2] == 0
    assert (found > 0).sum() >= 2


def test_a_network_in_which_nothing_reads_has_no_changes():
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    changes = first_order_changes(model, s3d.trace(model, x), [(x, torch.tensor([0, 1, 1, 0]))], nn.CrossEntropyLoss())
    assert changes.tolist() == [0, 0]


def test_frozen_readers_count():
    case = BY_NAME["mlp-tanh"]
    model = case.model()
    expected = s3d.importance(model, measured(case).graph, "taylor", [case.batch()], case.loss_fn)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = s3d.importance(model, measured(case).graph, "taylor", [case.batch()], case.loss_fn)
    assert all(torch.equal(found[name], scores) for name, scores in expected.items())
    assert all(parameter.grad is None for parameter in model.parameters())
