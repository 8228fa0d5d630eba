import ast
from pathlib import Path

import pytest

import nni_s3d as s3d
from nni_s3d.growth import settings as settings_module
from nni_s3d.growth.selection.settings import Knapsack, TopFraction
from nni_s3d.growth.settings import METHODS, GrowthSettings


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"copies": 5}, "copies: expected 2, 3 or 4"),
        ({"copies": {1}}, "copies: expected at least one of 2, 3 and 4"),
        ({"c": 0.5}, "c: expected a number >= 1"),
        ({"triplet": "best"}, "triplet: expected one of optimal, paper, got 'best'"),
        ({"epsilon": -1}, "epsilon: expected a number >= 0 .*, got -1"),
        ({"epsilon": float("inf")}, "epsilon: expected a number >= 0 .*, got inf"),
        ({"smoothing": 0}, "smoothing: expected a number > 0 .*, got 0"),
        ({"max_params": 0}, "max_params: expected a number > 0, got 0"),
        ({"epsilon": 1e300}, "epsilon: expected a number >= 0 and <= 1e.06, got 1e.300"),
        ({"smoothing": 1e300}, "smoothing: expected a number > 0 and <= 1e.06, got 1e.300"),
        ({"epsilon": "1"}, "epsilon: expected a number >= 0 .*, got '1'"),
        ({"smoothing": True}, "smoothing: expected a number > 0 .*, got True"),
        ({"relative": "no"}, "relative: expected True or False, got 'no'"),
        ({"max_params": "9"}, "max_params: expected a number > 0, got '9'"),
        ({"max_macs": float("nan")}, "max_macs: expected a number > 0, got nan"),
        ({"solver": "newton"}, "solver: expected one of auto, exact, lanczos, rayleigh, got 'newton'"),
        ({"method": "s3d"}, "method: expected one of split, new_neurons.*, got 's3d'"),
        ({"method": "new_neurons", "c": 1.0}, "c: expected it with method split.* only, got 1.0 with new_neurons"),
        (
            {"method": "new_neurons", "epsilon": 0.1},
            "epsilon: expected it with method split.* only, got 0.1 with new_neurons",
        ),
        ({"method": "new_neurons", "copies": 4}, "copies: expected 2 with method new_neurons, got 4"),
        ({"method": "random", "c": 1.0}, "c: expected it with method split only, got 1.0 with random"),
        ({"method": "random", "copies": 3}, "copies: expected 2 with method random, got 3"),
        ({"method": "net2net", "copies": 3}, "copies: expected 2 with method net2net, got 3"),
        ({"shrink": 0}, "shrink: expected a number > 0 and <= 1, got 0"),
        ({"shrink": 1.5}, "shrink: expected a number > 0 and <= 1, got 1.5"),
        ({"perturb": -0.1}, "perturb: expected a number >= 0 .*, got -0.1"),
        ({"perturb": "some"}, "perturb: expected a number >= 0 .*, got 'some'"),
        ({"max_macs": -3}, "max_macs: expected a number > 0, got -3"),
    ],
)
def test_wrong_settings_are_refused(settings, match):
    with pytest.raises(s3d.ConfigError, match=match):
        GrowthSettings(**settings)


def test_the_defaults_are_those_of_the_docs():
    growth = GrowthSettings()
    assert growth.policy == s3d.Knapsack(growth=0.6, cost="macs")
    assert (growth.method, growth.copies, growth.c, growth.smoothing) == ("split", 2, 1.3, 3.0)
    assert (growth.epsilon, growth.relative) == (0.5, True)
    assert (growth.shrink, growth.perturb) == (0.5, 0.1)


@pytest.mark.parametrize(("old", "new"), [("signed", "split"), ("new", "new_neurons")])
def test_old_names_of_methods_say_the_new_one(old, new):
    with pytest.raises(
        s3d.ConfigError, match=rf"method: expected one of {', '.join(METHODS)}, got '{old}', now .* '{new}'"
    ):
        GrowthSettings(method=old)


def test_settings_import_no_torch():
    tree = ast.parse(Path(settings_module.__file__).read_text())
    assert "torch" not in {getattr(node, "module", "") for node in ast.walk(tree)}


def test_settings_of_a_step_have_its_budget():
    settings = GrowthSettings(policy=Knapsack([10, 20]), c=1.0)
    assert settings.at(1) == GrowthSettings(policy=Knapsack(20), c=1.0)
    assert GrowthSettings(policy=TopFraction(0.2)).at(3) == GrowthSettings(policy=TopFraction(0.2))
