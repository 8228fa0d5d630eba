import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.training import Hooks, train
from tests.tasks.test_training import loader, network


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
    wsd = rates(Recipe(epochs=4, lr=1e-3, schedule="wsd", decay=0.5))
    assert wsd == pytest.approx([1e-3, 1e-3, 0.5e-3, 0])
    warm = rates(Recipe(epochs=4, lr=1e-3, schedule="constant", warmup_epochs=2))
    assert warm == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3], rel=1e-2)


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
        ({"decay": 0.0}, r"^decay: expected a fraction in \(0, 1\), got 0.0"),
        ({"decay": 1.0}, r"^decay: expected a fraction in \(0, 1\), got 1.0"),
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


@pytest.mark.parametrize(("steps", "stable"), [(100, 85), (10, 8), (2, 1), (1, 1)])
def test_a_phase_is_stable_for_all_steps_but_its_decay_and_one_at_least(steps, stable):
    assert Recipe(schedule="wsd", decay=0.15).stable_steps(steps) == stable
