import numpy as np
import pytest
import torch

import nni_s3d as s3d
from nni_s3d import models
from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.cost import CostModel
from paper.amc import LEAST, Layers, kept, search, shapes_of
from paper.pruning import cost_of


@pytest.fixture
def traced():
    torch.manual_seed(0)
    model = models.mobilenet_v1_small([16, 24, 24, 32, 32, 32], 10, 1, 8)
    return model, s3d.trace(model, torch.randn(1, 1, 8, 8))


def layers(traced, accuracy, share=0.5, kind="macs"):
    model, graph = traced
    scores = s3d.importance(model, graph, "l1")
    budget = share * CostModel(graph, kind).total()
    return Layers(graph, scores, shapes_of(model, graph, torch.randn(1, 1, 8, 8)), kind, budget, accuracy)


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_every_network_keeps_the_budget(traced, kind):
    seen = []
    env = layers(traced, lambda fractions: seen.append(fractions) or 0.5, kind=kind)
    generator = np.random.default_rng(0)
    for _ in range(20):
        state, _ = env.reset()
        done = False
        while not done:
            assert env.observation_space.contains(state), state
            state, reward, done, _, _ = env.step(generator.uniform(LEAST, 1, 1).astype(np.float32))
        assert reward == -0.5
    assert len(seen) == 20
    for fractions in seen:
        assert cost_of(env.cost, env.graph, kept(env.scores, fractions)) <= env.budget


def test_the_state_tells_what_a_layer_costs_what_is_cut_and_what_is_left(traced):
    env = layers(traced, lambda fractions: 0.5, share=1.0)
    state, _ = env.reset()
    costs = []
    for name in env.groups:
        costs.append(env.whole - cost_of(env.cost, env.graph, kept(env.scores, {name: 0.5})))
    price, reduced, rest, before = state[-4:]
    assert (reduced, before) == (0.0, 1.0)
    assert price + rest == pytest.approx(1.0)
    assert price == pytest.approx(costs[0] / sum(costs), rel=0.1)  # half of a layer costs about half of it
    state, *_ = env.step(np.array([0.5], np.float32))
    assert state[-3] == pytest.approx(costs[0] / env.whole)
    assert state[-1] == 0.5
    assert state[-2] == pytest.approx(rest - state[-4])


def test_what_is_free_is_not_cut(traced):
    env = layers(traced, lambda fractions: 0.5, share=1.0)
    env.reset()
    for _ in env.groups:
        env.step(np.ones(1, np.float32))
    assert list(env.fractions.values()) == pytest.approx([1.0] * len(env.groups), abs=1e-6)


def test_the_agent_finds_the_layer_that_pays(traced):
    """An accuracy that is the fraction of the last layer, which a greedy start leaves no budget for."""
    env = layers(traced, lambda fractions: fractions["pw5"] ** 2, share=0.4)
    best = search(env, 60, seed=0)
    assert best["pw5"] == pytest.approx(1.0, abs=0.05)


def test_the_state_tells_the_shape_of_a_layer(traced):
    model, graph = traced
    found = dict(zip(graph.widths, shapes_of(model, graph, torch.randn(1, 1, 8, 8)), strict=True))
    assert found["conv0"] == [16, 1, 8, 8, 1, 3]
    assert found["pw1"] == [24, 16, 8, 8, 1, 1]
    assert found["pw5"][2:4] == [2, 2]


def test_asking_for_shapes_leaves_the_network_as_it_is(traced):
    model, graph = traced
    before = {name: value.clone() for name, value in model.train().state_dict().items()}
    shapes_of(model, graph, torch.randn(1, 1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_what_is_left_of_the_budget_is_filled(traced):
    env = layers(traced, lambda fractions: 0.5)
    filled = env.filled(dict.fromkeys(env.groups, 0.4) | {"pw1": 0.9})
    assert filled["pw1"] == 1.0
    more = {name: min(1.0, 1.1 * fraction) for name, fraction in filled.items()}
    assert env._cost(filled) <= env.budget < env._cost(more)
    rest = {filled[name] for name in env.groups if name != "pw1"}
    assert len(rest) == 1
    assert rest.pop() > 0.4


def test_a_budget_out_of_reach_is_refused(traced):
    with pytest.raises(ConfigError, match=r"budget: expected at least [\d,]+ macs, a fifth of every layer, got [\d,]+"):
        layers(traced, lambda fractions: 0.5, share=0.01)
