from copy import deepcopy

import nni
import pytest
import torch
from nni.compression.pruning import L1NormPruner, SlimPruner
from nni.compression.utils import TorchEvaluator
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.cost import CostModel
from nni_s3d.models import mobilenet_v1_small
from paper.bench import within
from paper.pruning import cost_of, largest_of_all, largest_of_each


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)),
    )


@pytest.fixture
def traced():
    model = network()
    return model, s3d.trace(model, torch.randn(1, 3, 6, 6))


def test_l1_removes_what_nnis_pruner_removes(traced):
    model, graph = traced
    ours = largest_of_each(s3d.importance(model, graph, "l1"), 0.5)
    settings = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    _, masks = L1NormPruner(network(), settings).compress()
    for name in ("0", "3"):
        assert torch.equal(ours[name], masks[name]["weight"].flatten(1).amax(dim=1).bool())


def test_l1_removes_what_nnis_pruner_removes_of_mobilenet():
    widths = [8, 12, 12, 16, 16, 16]
    torch.manual_seed(0)
    model = mobilenet_v1_small(widths, image_size=8)
    graph = s3d.trace(model, torch.randn(1, 1, 8, 8))
    ours = largest_of_each(s3d.importance(model, graph, "l1"), 0.5)
    assert list(ours) == ["conv0", "pw1", "pw2", "pw3", "pw4", "pw5"]
    _, masks = L1NormPruner(deepcopy(model), [{"op_names": list(ours), "sparse_ratio": 0.5}]).compress()
    for name, stays in ours.items():
        assert torch.equal(stays, masks[name]["weight"].flatten(1).amax(dim=1).bool()), name


def test_batch_norm_removes_what_nnis_pruner_removes():
    """NNI ranks factors that it trains itself, on top of the batch norms; here they are the scales of batch norms."""
    model = network()
    batches = [(torch.randn(16, 3, 6, 6), torch.randint(0, 5, (16,))) for _ in range(4)]

    def training_step(batch, model):
        return F.cross_entropy(model(batch[0]), batch[1])

    def training(model, optimizer, training_step, schedulers, max_steps, max_epochs):
        for batch in batches[:max_steps]:
            optimizer.zero_grad()
            training_step(batch, model).backward()
            optimizer.step()

    evaluator = TorchEvaluator(training, nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1), training_step)
    settings = [
        {"op_types": ["BatchNorm2d"], "sparse_ratio": 0.5, "global_group_id": "all", "target_names": ["weight"]}
    ]
    pruner = SlimPruner(model, settings, evaluator, training_steps=4, regular_scale=1e-2)
    _, masks = pruner.compress()
    factors = {name: of_norm["weight"].detach().clone() for name, of_norm in pruner.scaling_factors.items()}
    model, norms = network(), {"0": "1", "3": "4"}
    graph = s3d.trace(model, batches[0][0])
    with torch.no_grad():
        for norm in norms.values():
            model.get_submodule(norm).weight.copy_(factors[norm])
    ours = largest_of_all(s3d.importance(model, graph, "batch_norm"), 0.5)
    assert sum(int(stays.sum()) for stays in ours.values()) == 10
    for group, norm in norms.items():
        assert torch.equal(ours[group], masks[norm]["weight"].bool())


@pytest.mark.parametrize("choose", [largest_of_each, largest_of_all])
@pytest.mark.parametrize("kind", ["params", "macs"])
def test_the_largest_fraction_within_a_budget_is_found(traced, choose, kind):
    model, graph = traced
    scores = s3d.importance(model, graph, "l1")
    cost = CostModel(graph, kind)
    budget = 0.6 * cost.total()
    fraction = within(lambda share: cost_of(cost, graph, choose(scores, share)), 0.0, 1.0, budget)
    assert cost_of(cost, graph, choose(scores, fraction)) <= budget
    assert cost_of(cost, graph, choose(scores, fraction + 1e-6)) > budget
    cut = s3d.remove(model, graph, choose(scores, fraction))
    assert CostModel(cut.graph, kind).total() == cost_of(cost, graph, choose(scores, fraction))


def test_two_neurons_of_every_layer_stay(traced):
    model, graph = traced
    for choose in (largest_of_each, largest_of_all):
        keep = choose(s3d.importance(model, graph, "l1"), 0.0)
        assert all(int(stays.sum()) == 2 for stays in keep.values())


def test_a_fraction_of_all_scores_stays_whatever_their_layers():
    scores = {"a": torch.tensor([9.0, 8.0, 7.0, 6.0]), "b": torch.tensor([1.0, 2.0, 5.0, 3.0])}
    keep = largest_of_all(scores, 0.75)
    assert keep["a"].tolist() == [True] * 4
    assert keep["b"].tolist() == [False, False, True, True]
    assert all(bool(stays.all()) for stays in largest_of_all(scores, 1.0).values())


def test_a_floor_keeps_a_fraction_of_every_layer():
    scores = {"a": torch.tensor([9.0, 8.0, 7.0, 6.0]), "b": torch.tensor([0.1, 0.4, 0.2, 0.3])}
    assert largest_of_all(scores, 0.25, floor=0.75)["b"].tolist() == [False, True, True, True]
    assert largest_of_all(scores, 0.25, floor=0.75)["a"].tolist() == [True, True, True, False]
