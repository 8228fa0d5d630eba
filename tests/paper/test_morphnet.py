import json
from pathlib import Path

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import models
from nni_s3d.growth.graph.cost import CostModel, marginal_cost
from paper.bench import Bench
from paper.morphnet import MacPenalty, morphnet
from paper.settings import Job, read_study


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


def test_what_is_left_is_expanded_by_one_factor(tmp_path, monkeypatch):
    study = read_study(Path(__file__).parents[2] / "paper" / "digits.yml")
    bench = Bench(study, study.scale("tiny"), Job("MorphNet", "own", 0), tmp_path)

    def trained(self, name, model, *_):
        if name == "shrunk":
            with torch.no_grad():
                model.pwbn3.weight[:8] = 0
        return model

    monkeypatch.setattr(Bench, "trained", trained)
    (row,) = morphnet(bench)
    widths, full = json.loads(row["widths"]), bench.full
    factor = widths["pw1"] / full["pw1"]
    assert 0.9 < factor < 1.1  # at 0.8 of the parameters of the full network
    assert widths == {name: round(factor * (8 if name == "pw3" else width)) for name, width in full.items()}
    assert row["params"] <= 0.8 * bench.budget[1] / bench.method.share
