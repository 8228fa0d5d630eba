import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.growth_step import check_growth, decide
from nni_s3d.growth.settings import GrowthSettings
from tests.growth.test_loop import BATCHES, X, seed_network


def test_limits_of_the_widths_reach_the_selection():
    model = seed_network(3)
    graph = s3d.trace(model, X[:1])
    growth = GrowthSettings(policy=s3d.TopFraction(1.0))
    free, tight = (
        decide(model, graph, growth, BATCHES, F.mse_loss, max_widths=limit).plan for limit in (None, {"0": 4})
    )
    assert free.widths == {"0": 6, "2": 6}
    assert tight.widths == {"0": 4, "2": 6}


@pytest.mark.parametrize("smoothing", [1.0, 3.0, 8.0])
def test_the_smoothing_reaches_the_operator(smoothing):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    graph = s3d.trace(model, X[:1])
    op = s3d.SplittingOperator(model, graph, BATCHES, F.mse_loss, smoothing)
    found = decide(model, graph, GrowthSettings(smoothing=smoothing), BATCHES, F.mse_loss).evidence["0"]
    assert torch.equal(found.lambda_max, s3d.spectrum(op)["0"].lambda_max)
    assert found.lambda_max.max() > 0


def test_a_budget_that_pays_for_no_neuron_ends_growth():
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    decision = decide(
        model,
        s3d.trace(model, torch.ones(1, 2, dtype=torch.float64)),
        GrowthSettings(method="new_neurons", policy=s3d.Knapsack(growth=0.01)),
    )
    assert (decision.plan, decision.stop) == (None, "the policy chooses none of the neurons that could gain")


def test_a_limit_below_the_network_is_refused_before_it_is_trained():
    graph = s3d.trace(seed_network(), X[:1])
    with pytest.raises(s3d.ConfigError, match="max_macs: expected at least 8, what the network has, got 1"):
        check_growth(GrowthSettings(max_macs=1), graph)


def test_a_network_without_layers_that_can_be_split_is_refused():
    graph = s3d.trace(nn.Sequential(nn.Linear(1, 1)).double(), X[:1])
    with pytest.raises(s3d.ModelError, match="model: expected a layer that can be split, got none"):
        check_growth(GrowthSettings(), graph)
