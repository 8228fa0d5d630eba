import subprocess
import sys

import pytest
import torch
from torch import nn

from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.tasks.data import Images, Loader
from nni_s3d.tasks.training import Hooks, Recipe, evaluate, train


def data(n=60):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=generator)
    noise = torch.randint(0, 60, (n, 1, 4, 4), generator=generator)
    return Images((noise + 60 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8), labels)


def loader(**settings):
    return Loader(data(), (0.4,), (0.2,), batch_size=16, **settings)


def network():
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 4)
    return nn.Sequential(*convolutions, nn.Flatten(), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_learns(optimizer):
    model = network()
    before = evaluate(model, loader())
    train(model, loader(seed=0), Recipe(epochs=20, lr=0.05, optimizer=optimizer))
    after = evaluate(model, loader())
    assert after.loss < before.loss / 2
    assert after.accuracy > 0.9


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_do_what_those_of_pytorch_do(optimizer):
    settings = {"lr": 0.05, "weight_decay": 0.1} | ({"momentum": 0.9} if optimizer is torch.optim.SGD else {})
    recipe = Recipe(epochs=2, schedule="constant", optimizer=optimizer.__name__.lower(), lr=0.05, weight_decay=0.1)
    ours, theirs = network(), network()
    ours[-2] = theirs[-2] = nn.Identity()  # no dropout, which draws numbers
    state = train(ours, loader(seed=0), recipe).state_dict()
    expected = optimizer(theirs.parameters(), **settings)
    for epoch in range(2):
        for inputs, targets in loader(seed=0).epoch(epoch):
            expected.zero_grad()
            nn.functional.cross_entropy(theirs(inputs), targets).backward()
            expected.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(state["state"], expected.state_dict()["state"], rtol=0, atol=0)
    expected.load_state_dict(state)


def test_training_does_not_import_the_compiler():
    program = (
        "import sys; from tests.tasks.test_training import *; "
        "[train(network(), loader(), Recipe(epochs=1, optimizer=kind)) for kind in ('sgd', 'adam', 'adamw')]; "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_interrupted_phase_ends_with_the_same_weights(optimizer):
    recipe = Recipe(epochs=6, lr=0.05, optimizer=optimizer, warmup_epochs=1)
    whole = network()
    train(whole, loader(seed=3, pad=1), recipe, seed=5)
    kept = {}

    def save(state):
        kept["state"] = torch.utils._pytree.tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, state)
        if state["epoch"] == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(network(), loader(seed=3, pad=1), recipe, seed=5, hooks=Hooks(save=save))
    resumed = network()
    train(resumed, loader(seed=3, pad=1), recipe, seed=5, hooks=Hooks(load=lambda: kept["state"]))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [], "got TypeError"),
        (lambda state: {}, "got KeyError: 'model'"),
        (lambda state: {**state, "model": {}}, r"got RuntimeError: Error\(s\) in loading state_dict for Sequential:$"),
        (lambda state: {**state, "optimizer": 3}, "got AttributeError"),
        (lambda state: {**state, "epoch": 3}, "got the epoch 3"),
        (lambda state: {**state, "epoch": "1"}, "got the epoch '1'"),
    ],
)
def test_other_checkpoints_are_refused(change, message):
    kept = []
    train(network(), loader(seed=0), Recipe(epochs=2), hooks=Hooks(save=kept.append))
    hooks = Hooks(load=lambda: change(kept[0]), checkpoint="a/checkpoint.pt")
    expected = f"^a/checkpoint.pt: expected a checkpoint of this network and recipe, {message}"
    with pytest.raises(StoreError, match=expected):
        train(network(), loader(seed=0), Recipe(epochs=2), hooks=hooks)


def test_training_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    model = network()
    torch.set_rng_state(state)
    train(model, loader(seed=0), Recipe(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def rates(recipe):
    seen = []
    train(
        network(),
        loader(seed=0),
        recipe,
        hooks=Hooks(save=lambda state: seen.append(state["optimizer"]["param_groups"][0]["lr"])),
    )
    return seen


def test_schedules():
    assert rates(Recipe(epochs=4, lr=1e-3, schedule="constant")) == pytest.approx([1e-3] * 4)
    step = Recipe(epochs=4, lr=1e-3, schedule="step", milestones=(0.5, 0.75))
    assert rates(step) == pytest.approx([1e-3, 1e-4, 1e-5, 1e-5])
    cosine = rates(Recipe(epochs=4, lr=1e-3, schedule="cosine", min_lr=1e-4))
    assert cosine == pytest.approx([1e-4 + 9e-4 * x for x in (0.853553, 0.5, 0.146447, 0.0)], rel=1e-5)
    warm = rates(Recipe(epochs=4, lr=1e-3, schedule="constant", warmup_epochs=2))
    assert warm == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3], rel=1e-2)


def test_weight_decay_spares_batch_norm_and_biases_where_asked():
    optimizer = train(network(), loader(seed=0), Recipe(epochs=1, weight_decay=0.1, decay_norm_and_bias=False))
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert [p.dim() for p in decayed["params"]] == [4, 4, 2]
    assert {p.dim() for p in spared["params"]} == {1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "^epochs: expected at least 1, got 0"),
        ({"optimizer": "lion"}, "^optimizer: expected one of sgd, adam, adamw, got 'lion'"),
        ({"schedule": "poly"}, "^schedule: expected one of"),
        ({"lr": 0.0}, "^lr"),
        ({"label_smoothing": 1.0}, "^label_smoothing"),
        ({"nesterov": True, "momentum": 0.0}, "^nesterov: expected a momentum > 0 beside it, got True"),
        ({"min_lr": -5.0}, "^min_lr: expected a number >= 0 and <= lr, got -5.0"),
        ({"min_lr": 1.0}, "^min_lr: expected a number >= 0 and <= lr, got 1.0"),
        ({"gamma": -1.0}, r"^gamma: expected a number in \(0, 1\], got -1.0"),
        ({"gamma": float("nan")}, r"^gamma: expected a number in \(0, 1\], got nan"),
        ({"milestones": (0.5, -3.0)}, r"^milestones: expected fractions in \[0, 1\], got \(0.5, -3.0\)"),
        ({"epochs": 2, "warmup_epochs": 2.0}, "^warmup_epochs"),
    ],
)
def test_bad_recipes_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**settings)


def test_a_recipe_of_another_length_keeps_the_share_of_its_warm_up():
    recipe = Recipe(epochs=20, warmup_epochs=5, lr=0.2, momentum=0.5).lasting(7)
    assert (recipe.epochs, recipe.lr, recipe.momentum) == (7, 0.2, 0.5)
    assert recipe.warmup_epochs / 7 == pytest.approx(5 / 20)
