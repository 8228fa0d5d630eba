import pytest
import torch

import nni_s3d as s3d
from nni_s3d import models
from nni_s3d.growth.graph.cost import CostModel, marginal_cost
from paper.morphnet import MacPenalty


@pytest.fixture
def traced():
    torch.manual_seed(0)
    model = models.mobilenet_v1_small([4, 6, 6, 8, 8, 8], 10, 1, 8)
    return model, s3d.trace(model, torch.randn(1, 1, 8, 8))


def gammas(model, *names):
    return [model.get_submodule(name).weight for name in names]


def test_the_derivative_by_a_scale_is_the_price_of_its_channel(traced):
    model, graph = traced
    penalty = MacPenalty(model, graph, 3.0)
    own, depthwise = gammas(model, "bn0", "dwbn1")  # both of conv0's channels, which share the price
    derivatives = torch.autograd.grad(penalty(), [own, depthwise])
    cost = CostModel(graph, "macs")
    fewer = torch.ones(graph.num_channels, dtype=torch.int64)
    fewer[graph["conv0"].first] = 0
    grown = torch.cat([torch.arange(graph[name].first, graph[name].channels.stop) for name in graph.widths])
    saved = (cost.total() - cost.total(fewer)) / marginal_cost(graph, "macs")[grown].mean().item()
    assert derivatives[0][0].item() == pytest.approx(3.0 * saved / 2, rel=1e-5)
    assert derivatives[0][0].item() == pytest.approx(derivatives[1][0].item())


def test_dead_neighbours_make_a_channel_cheaper(traced):
    model, graph = traced
    penalty = MacPenalty(model, graph, 1.0)
    (gamma,) = gammas(model, "pwbn1")
    (before,) = torch.autograd.grad(penalty(), gamma)
    with torch.no_grad():
        for norm in gammas(model, "bn0", "dwbn1"):
            norm[:2] = 0
    (after,) = torch.autograd.grad(penalty(), gamma)
    assert (after < before).all()
    cut = s3d.remove(model, graph, {"conv0": torch.tensor([False, False, True, True])})
    prices = marginal_cost(cut.graph, "macs") / penalty.mean_price
    expected = prices[cut.graph["pw1"].channels].float() / 2  # of two batch norms
    assert torch.allclose(after, expected)


def test_a_channel_is_dead_as_soon_as_one_of_its_batch_norms_is(traced):
    model, graph = traced
    with torch.no_grad():
        gammas(model, "dwbn1")[0][1] = 0.001
    alive = MacPenalty(model, graph, 1.0).alive()
    assert alive[graph["conv0"].channels].tolist() == [True, False, True, True]
    assert alive.sum() == graph.num_channels - 1
