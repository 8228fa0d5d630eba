"""Random splits: the function stays at epsilon = 0, directions are uniform on the sphere, chance follows the seed."""

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.graph.theta import pack, theta_norms
from nni_s3d.growth.growth_step import decide
from nni_s3d.growth.settings import GrowthSettings
from tests.cases import BY_NAME, Case, all_cases, measured
from tests.wide import WIDE

POLICIES = [s3d.TopK(3), s3d.TopFraction(0.4), s3d.Knapsack(growth=0.5), s3d.Knapsack(budget=90, cost="params")]


def all_split(case: Case, seed: int = 0, **settings) -> s3d.GrowthPlan:
    run = measured(case)
    pairs = {group.name: torch.full((group.width,), 2) for group in run.graph.splittable_groups}
    return s3d.plan_from_copies(run.graph, pairs, s3d.random_splits(run.model, run.graph, seed), **settings)


@all_cases
def test_the_function_stays_without_a_displacement(case):
    run, inputs = measured(case), case.inputs(8, seed=5)
    grown = s3d.split(run.model, run.graph, all_split(case), epsilon=0).model
    torch.testing.assert_close(grown(inputs), run.model(inputs), rtol=0, atol=1e-10)


@all_cases
def test_copies_go_opposite_ways_with_half_the_weight(case):
    run, splits = measured(case), s3d.random_splits(measured(case).model, measured(case).graph)
    plan = all_split(case)
    assert (plan.gain, plan.held_out_gain, plan.held_out_error, plan.seed) == (0.0, None, None, None)
    for name, directions in splits.directions.items():
        assert directions.shape == plan.displacements[name][0::2].shape
        torch.testing.assert_close(directions.norm(dim=1), torch.ones(len(directions), dtype=directions.dtype))
        assert torch.equal(plan.displacements[name][0::2], directions)
        assert torch.equal(plan.displacements[name][1::2], -directions)
        assert (plan.weights[name] == 0.5).all()
    assert list(plan.displacements) == [group.name for group in run.graph.splittable_groups]


def test_neurons_that_are_not_split_do_not_move():
    run = measured(BY_NAME["mlp-tanh"])
    splits = s3d.random_splits(run.model, run.graph)
    plan = s3d.plan_from_copies(run.graph, {"0": torch.tensor([1, 2, 1, 1, 2])}, splits)
    assert plan.weights["0"].tolist() == [1, 0.5, 0.5, 1, 1, 0.5, 0.5]
    assert (plan.displacements["0"] != 0).any(dim=1).tolist() == [False, True, True, False, False, True, True]
    assert not plan.displacements["2"].any()


@pytest.mark.parametrize("relative", [False, True])
def test_epsilon_is_in_the_unit_of_the_plan(relative):
    case = BY_NAME["mlp-tanh"]
    run = measured(case)
    norms = theta_norms(run.graph.splittable_groups, dict(run.model.named_parameters()))
    plan = all_split(case, theta_norms=norms if relative else None)
    assert plan.relative == relative
    result = s3d.split(run.model, run.graph, plan, epsilon=0.1)
    neuron = result.index_map["0"]  # the first layer: nothing that it reads has grown
    before = pack(run.graph["0"], dict(run.model.named_parameters()))[neuron]
    after = pack(result.graph["0"], dict(result.model.named_parameters()))
    expected = norms["0"][neuron] if relative else torch.ones(len(after), dtype=after.dtype)
    torch.testing.assert_close((after - before).norm(dim=1), 0.1 * expected)


def test_directions_are_uniform_on_the_sphere():
    n, d = 20_000, 4
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(d - 1, n), nn.Tanh(), nn.Linear(n, 1)).double()
    u = s3d.random_splits(model, s3d.trace(model, torch.randn(4, d - 1, dtype=torch.float64))).directions["0"]
    error = 5 / n**0.5  # five standard errors of a number whose variance is at most one
    assert u.mean(dim=0).abs().max() < error
    assert (u.mT @ u / n - torch.eye(d) / d).abs().max() < error
    assert ((u**4).mean(dim=0) - 3 / (d * (d + 2))).abs().max() < error
    assert (u.prod(dim=1)).mean().abs() < error


def test_the_seed_decides():
    run = measured(BY_NAME["conv-bn-relu"])
    first, same, other = (
        s3d.select(s3d.random_splits(run.model, run.graph, seed), run.graph, s3d.TopFraction(0.5)) for seed in (3, 3, 4)
    )
    assert all(torch.equal(tensor, same.to_tensors()[name]) for name, tensor in first.to_tensors().items())
    assert any(not torch.equal(n, other.copies[name]) for name, n in first.copies.items())
    one, another = (s3d.random_splits(run.model, run.graph, seed).directions for seed in (3, 4))
    assert not any(torch.isclose(one[name], another[name]).all(dim=1).any() for name in one)


def test_random_numbers_of_the_process_are_left_alone():
    run, before = measured(BY_NAME["mlp-tanh"]), torch.random.get_rng_state()
    s3d.random_splits(run.model, run.graph)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_policies_take_the_highest_priorities(policy):
    run = measured(BY_NAME["mlp-tanh"])
    splits = s3d.random_splits(run.model, run.graph)
    plan = s3d.select(splits, run.graph, policy)
    assert 0 < plan.neurons < sum(run.graph.widths.values())
    assert all(n.max() <= 2 for n in plan.copies.values())
    if isinstance(policy, s3d.TopK):
        priorities = torch.cat([splits.priorities[name] for name in run.graph.widths])
        split = torch.cat([plan.copies[name] for name in run.graph.widths]) == 2
        assert set(priorities.topk(3).indices.tolist()) == set(split.nonzero()[:, 0].tolist())
    if isinstance(policy, s3d.Knapsack):
        assert plan.params <= 90 if policy.cost == "params" else plan.macs <= 1.5 * s3d.count(run.graph).macs


@pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)
def test_the_budget_holds_and_parts_stay_equal(case):
    run, inputs = measured(case), case.inputs(8, seed=5)
    plan = s3d.select(s3d.random_splits(run.model, run.graph), run.graph, s3d.Knapsack(growth=0.8))
    assert plan.macs <= 1.8 * s3d.count(run.graph).macs
    grown = s3d.split(run.model, run.graph, plan, epsilon=0).model
    torch.testing.assert_close(grown(inputs), run.model(inputs), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "policy", [s3d.TopFraction(0.4), s3d.Knapsack(growth=0.4), s3d.Knapsack(growth=0.4, cost="params")]
)
def test_net2net_gives_every_neuron_the_same_chance(policy):
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
    with torch.no_grad():
        model[0].weight[:3] *= 100  # larger ones, and the second layer costs less
    graph, drawn = s3d.trace(model, torch.randn(4, 8)), torch.zeros(12)
    for seed in range(300):
        decision = decide(model.eval(), graph, GrowthSettings(method="net2net", policy=policy), seed=seed)
        drawn += torch.cat([decision.plan.copies[name] for name in graph.widths]) - 1
    assert (drawn / drawn.mean() - 1).abs().max() < 0.25


def test_a_plan_comes_back_from_the_disk():
    run = measured(BY_NAME["residual-silu"])
    plan = s3d.select(s3d.random_splits(run.model, run.graph, seed=5), run.graph, s3d.TopFraction(0.5))
    again = s3d.GrowthPlan.load(plan.to_json(), plan.to_tensors())
    first, second = (s3d.split(run.model, run.graph, p, 0.1).model.state_dict() for p in (plan, again))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_directions_have_the_precision_of_the_parameters():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    splits = s3d.random_splits(model, s3d.trace(model, torch.zeros(1, 3)))
    assert splits.directions["0"].dtype == torch.float32


def test_bad_input_is_refused_by_name():
    run, other = measured(BY_NAME["mlp-tanh"]), measured(BY_NAME["residual-silu"])
    splits = s3d.random_splits(run.model, run.graph)
    with pytest.raises(ConfigError, match=r"copies: expected 2, which go opposite ways, got \{4\}"):
        s3d.select(splits, run.graph, s3d.TopK(1), copies=4)
    with pytest.raises(ConfigError, match="0: expected at most 2 copies, which go opposite ways, got 3"):
        s3d.plan_from_copies(run.graph, {"0": torch.full((5,), 3)}, splits)
    with pytest.raises(ModelError, match="priorities of random splits, got none"):
        s3d.select(splits, other.graph, s3d.TopK(1))
    narrow = s3d.RandomSplits(
        splits.priorities, {name: directions[:, 1:] for name, directions in splits.directions.items()}
    )
    with pytest.raises(ModelError, match=r"0: expected directions of shape \(5, 5\), got \(5, 4\)"):
        s3d.plan_from_copies(run.graph, {"0": torch.full((5,), 2)}, narrow)
    with pytest.raises(ModelError, match="expected a parameter of shape"):
        s3d.random_splits(other.model, run.graph)
