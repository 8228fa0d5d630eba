import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.seeds import seed_for
from tests import reference
from tests.cases import BY_NAME

X = torch.linspace(-2, 2, 64, dtype=torch.float64)[:, None]
Y = torch.sin(3 * X)
BATCHES = [(X[::2], Y[::2]), (X[1::2], Y[1::2])]


PAPER = {"epsilon": 0.01, "relative": False, "shrink": 1.0, "perturb": 0.0}


def seed_network(hidden: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
    ).double()


@torch.no_grad()
def loss_of(model: nn.Module) -> float:
    return float(F.mse_loss(model(X), Y))


def train(model: nn.Module) -> float:
    """Run the parametric phase: Adam on all samples."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.mse_loss(model(X), Y).backward()
        optimizer.step()
    return loss_of(model)


def no_training(_: nn.Module) -> None:
    return None


def run(
    model: nn.Module, policy: object = None, steps: int = 3, phase=train, **settings: object
) -> list[s3d.GrowthStep]:
    policy = policy or s3d.TopK(2)
    return list(s3d.grow(model, X[:1], phase, BATCHES, F.mse_loss, policy, steps, **(PAPER | settings)))


def test_a_grown_network_is_shrunk_and_perturbed_if_asked():
    plain, shaken = (
        run(seed_network(), steps=1, phase=no_training, **s) for s in ({}, {"shrink": 0.5, "perturb": 0.1})
    )
    expected = copy.deepcopy(plain[1].model)
    s3d.shrink_and_perturb(expected, 0.5, 0.1, seed_for(0, 0, 1))
    torch.testing.assert_close(shaken[1].model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_network_grows_and_its_loss_falls():
    steps = run(seed_network(), steps=3, epsilon=0.05)
    assert [step.step for step in steps] == [0, 1, 2, 3]
    assert [sum(step.widths.values()) for step in steps] == [4, 6, 8, 10]
    losses = [step.trained for step in steps]
    assert all(after < before for before, after in pairwise(losses))
    assert losses[-1] < 0.5 * losses[0]
    for step, after in pairwise(steps):
        assert step.decision.stop == ""
        assert step.decision.plan.widths == after.widths
        assert step.decision.plan.params == after.cost.params == reference.params(after.model)
        assert step.decision.evidence.keys() == step.widths.keys()
        assert after.cost.macs == reference.macs(after.model, X)
    assert steps[-1].decision is None
    assert len({id(step.model) for step in steps}) == 4


def test_without_training_the_loss_falls_as_predicted():
    """Every step of growth alone lowers the loss by the predicted gain."""
    model, epsilon = seed_network(3), 1e-3
    train(model)
    steps = run(model, s3d.TopFraction(1.0), steps=2, phase=loss_of, epsilon=epsilon)
    for before, after in pairwise(steps):
        predicted = epsilon**2 / 2 * before.decision.plan.gain
        assert predicted < 0
        assert after.trained - before.trained == pytest.approx(predicted, rel=0.02)


def test_the_same_seed_gives_the_same_growth():
    first, second = (run(seed_network(), steps=2, copies=3)[-1].model.state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_steps_come_one_by_one():
    trained = []
    steps = s3d.grow(seed_network(), X[:1], trained.append, policy=s3d.TopK(1), method="new_neurons")
    assert next(steps).step == 0
    assert len(trained) == 1
    assert next(steps).step == 1
    assert len(trained) == 2
    assert trained[0] is not trained[1]


def test_no_steps_only_train():
    (only,) = run(seed_network(), steps=0)
    assert only.decision is None
    assert only.widths == {"0": 2, "2": 2}


def test_growth_stops_when_no_gain_is_left():
    """A loss that is flat gives no neuron any curvature."""
    model = seed_network()

    def flat(outputs: Tensor, targets: Tensor) -> Tensor:
        return 0 * F.mse_loss(outputs, targets)

    steps = list(s3d.grow(model, X[:1], no_training, BATCHES, flat, s3d.TopK(3), 5, **PAPER))
    assert len(steps) == 1
    assert steps[0].decision.stop == "no gain left"
    assert steps[0].decision.plan is None


def test_growth_stops_where_gains_are_below_eta():
    steps = run(seed_network(), s3d.TopK(3, eta=1e6))
    assert [step.decision.stop for step in steps] == ["the policy chooses none of the neurons that could gain"]


def test_neurons_without_weights_have_nothing_to_gain():
    model = seed_network()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    (only,) = s3d.grow(model, X[:1], no_training, method="new_neurons")
    assert only.decision.stop == "no gain left"


@pytest.mark.parametrize("kind", ["params", "macs"])
def test_growth_stops_before_a_limit(kind):
    steps = run(seed_network(), s3d.TopFraction(1.0), steps=9, phase=no_training, **{f"max_{kind}": 60})
    sizes = [getattr(step.cost, kind) for step in steps]
    assert 1 < len(steps) < 9
    assert sizes == sorted(sizes)
    assert sizes[-1] <= 60
    assert steps[-1].decision.plan is None
    assert all(step.decision.plan is not None for step in steps[:-1])
    stop = steps[-1].decision.stop
    assert stop.startswith("the next network would have ")
    assert stop.endswith(f" {kind}, above max_{kind} = 60")
    assert int(stop.split()[5]) > 60


def test_a_limit_that_is_met_exactly_does_not_stop():
    steps = run(seed_network(), s3d.TopFraction(1.0), steps=1, phase=no_training)
    limit = steps[1].cost.params
    again = run(seed_network(), s3d.TopFraction(1.0), steps=1, phase=no_training, max_params=limit)
    assert len(again) == 2
    assert len(run(seed_network(), s3d.TopFraction(1.0), steps=1, phase=no_training, max_params=limit - 1)) == 1


def test_the_settings_reach_every_stage():
    steps = run(seed_network(), s3d.TopK(1), steps=1, phase=no_training, copies=4, c=2.0, epsilon=0.0, solver="exact")
    assert sum(steps[1].widths.values()) == 4 + 3
    torch.testing.assert_close(steps[1].model(X), steps[0].model(X))
    weights = torch.cat(list(steps[0].decision.plan.weights.values()))
    assert sorted(weights.tolist())[:2] == [-0.25, -0.25]


def test_the_knapsack_and_mixed_copies():
    steps = run(seed_network(3), s3d.Knapsack(growth=0.5, cost="params"), steps=2, copies={2, 3, 4})
    for before, after in pairwise(steps):
        assert before.cost.params < after.cost.params <= 1.5 * before.cost.params


def test_curvature_is_measured_in_evaluation_mode_and_modes_are_restored():
    class Noisy(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 1))

    torch.manual_seed(0)
    model = Noisy().double().train()
    before = copy.deepcopy(model.state_dict())
    steps = run(model, steps=1, phase=no_training)
    assert all(module.training for module in model.modules())
    assert all(module.training for module in steps[1].model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("relative", [True, False])
def test_the_unit_and_the_length_reach_the_surgery(relative):
    first, second = run(seed_network(), steps=1, phase=no_training, epsilon=0.02, relative=relative)
    plan = first.decision.plan
    assert plan.relative is relative
    expected = s3d.split(first.model, s3d.trace(first.model, X[:1]), plan, 0.02).model
    assert all(torch.equal(a, b) for a, b in zip(second.model.parameters(), expected.parameters(), strict=True))


def test_batches_that_can_be_read_once_are_refused():
    steps = s3d.grow(seed_network(), X[:1], train, iter(BATCHES), F.mse_loss)
    with pytest.raises(s3d.ConfigError, match=r"batches: expected a collection .*, got an iterator"):
        next(steps)


def grown_without_derivatives(method: str, seed: int = 0, **settings: object) -> list[s3d.GrowthStep]:
    case = BY_NAME["conv-bn-relu"]

    def loss(model: nn.Module) -> float:
        return case.loss_fn(model.eval()(case.inputs()), case.targets()).item()

    settings = {"shrink": 1.0, "perturb": 0.0} | settings
    return list(s3d.grow(case.model(), case.inputs(), loss, steps=2, method=method, seed=seed, **settings))


@pytest.mark.parametrize(
    ("method", "settings"), [("new_neurons", {}), ("random", {"epsilon": 0.0}), ("net2net", {"epsilon": 0.0})]
)
def test_a_network_grows_without_derivatives(method, settings):
    steps = grown_without_derivatives(method, **settings)
    assert [step.decision.passes for step in steps[:2]] == [0, 0]
    assert all(sum(after.widths.values()) > sum(step.widths.values()) for step, after in pairwise(steps))
    assert steps[2].trained == pytest.approx(steps[0].trained, rel=1e-12)  # nothing is trained here


def test_random_splits_move():
    still, moved = (grown_without_derivatives("random", epsilon=epsilon)[1].trained for epsilon in (0.0, 0.5))
    assert abs(moved - still) > 1e-3


@pytest.mark.parametrize("method", ["new_neurons", "random", "net2net"])
def test_random_growth_follows_from_the_seed(method):
    first, second, other = (grown_without_derivatives(method, seed)[-1].model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert any(
        tensor.shape != other[name].shape or not torch.equal(tensor, other[name]) for name, tensor in first.items()
    )


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"policy": s3d.Knapsack(3, "params")}, s3d.ConfigError, "budget: expected at least 13 params"),
        ({"policy": "top_k"}, s3d.ConfigError, "policy: expected a policy such as"),
        ({"policy": s3d.TopK}, s3d.ConfigError, "policy: expected a policy such as .*, got <class"),
        ({"batches": []}, s3d.ConfigError, "batches: expected at least one, got none"),
        ({"batches": None}, s3d.ConfigError, "batches: expected a collection .*, got None"),
        ({"loss_fn": None}, s3d.ConfigError, "loss_fn: expected loss_fn.outputs, targets., got None"),
        ({"steps": -1}, s3d.ConfigError, "steps: expected a whole number >= 0, got -1"),
        ({"steps": "1"}, s3d.ConfigError, "steps: expected a whole number >= 0, got '1'"),
        ({"seed": None}, s3d.ConfigError, "seed: expected a whole number >= 0 and < 2..62, got None"),
        (
            {"seed": 2**70},
            s3d.ConfigError,
            "seed: expected a whole number >= 0 and < 2..62, got 1180591620717",
        ),
        ({"memory": "x"}, s3d.ConfigError, "memory: expected a number of bytes or None, got 'x'"),
        ({"max_params": 12}, s3d.ConfigError, "max_params: expected at least 13, what the network has, got 12"),
        ({"max_macs": 1}, s3d.ConfigError, "max_macs: expected at least 8, what the network has, got 1"),
        ({"model": nn.Linear(1, 1).double()}, s3d.ModelError, "model: expected a layer that can be split, got none"),
    ],
)
def test_nothing_is_trained_that_cannot_grow(changes, error, match):
    measured = {"batches": BATCHES, "loss_fn": F.mse_loss, **PAPER}
    arguments = {"model": seed_network(), "policy": s3d.TopK(1), "steps": 1, **measured, **changes}
    with pytest.raises(error, match=match):
        next(s3d.grow(example_inputs=X[:1], train=pytest.fail, **arguments))


def test_every_growth_step_may_have_a_budget_of_its_own():
    steps = run(seed_network(), s3d.Knapsack([18, 22], "params"), steps=2, phase=no_training)
    costs = [step.cost.params for step in steps]
    assert costs[0] == 13 < costs[1] <= 18 < costs[2] <= 22


def test_one_neuron_of_each_layer_grows_from_nothing():
    model = seed_network(1)
    steps = run(model, s3d.TopFraction(1.0), steps=3, epsilon=0.05)
    assert [step.widths["0"] for step in steps] == [1, 2, 4, 8]
    assert steps[-1].trained < steps[0].trained
    out: Tensor = steps[-1].model(X)
    assert out.shape == Y.shape
