"""Priorities by chance: uniform in units of |theta|^2, from a generator, and refused for another network."""

import pytest
import torch

from nni_s3d import ModelError
from nni_s3d.growth.graph.theta import theta_norms
from nni_s3d.growth.selection.priorities import check_priorities, random_priorities
from tests.cases import BY_NAME, measured


def drawn(name: str, seed: int) -> dict[str, torch.Tensor]:
    run = measured(BY_NAME[name])
    return random_priorities(run.model, run.graph, torch.Generator().manual_seed(seed))


def test_they_are_random_in_units_of_theta():
    run = measured(BY_NAME["residual-silu"])
    norms = theta_norms(run.graph.splittable_groups, dict(run.model.named_parameters()))
    shares = {name: numbers / norms[name] ** 2 for name, numbers in drawn("residual-silu", 0).items()}
    assert list(shares) == list(run.graph.widths)
    for name, share in shares.items():
        assert share.dtype == torch.float64
        assert ((share > 0) & (share < 1)).all()
        assert share.unique().numel() == run.graph.widths[name]


def test_the_generator_decides():
    first, same, other = (drawn("mlp-tanh", seed) for seed in (0, 0, 1))
    assert all(torch.equal(numbers, same[name]) for name, numbers in first.items())
    assert not any(torch.equal(numbers, other[name]) for name, numbers in first.items())


def test_priorities_of_another_network_are_refused():
    graph = measured(BY_NAME["mlp-tanh"]).graph
    priorities = drawn("mlp-tanh", 0)
    check_priorities(graph, priorities, "new neurons")
    with pytest.raises(ModelError, match=r"^2: expected 4 priorities of new neurons, got none$"):
        check_priorities(graph, {"0": priorities["0"]}, "new neurons")
    with pytest.raises(ModelError, match=r"^0: expected 5 priorities of random splits, got 4$"):
        check_priorities(graph, {**priorities, "0": priorities["2"]}, "random splits")


def test_weights_that_are_not_finite_are_refused():
    model, graph = BY_NAME["mlp-tanh"].model(), measured(BY_NAME["mlp-tanh"]).graph
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("inf")
    with pytest.raises(ModelError, match="0: expected finite weights, got infinity or NaN; has training diverged"):
        random_priorities(model, graph, torch.Generator())
