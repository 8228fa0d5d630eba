import json
from dataclasses import fields

import pytest

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.growth.selection.settings import Knapsack, TopFraction
from nni_s3d.growth.settings import GrowthSettings
from nni_s3d.search.lineage import Lineage, lineages
from tests.fresh_process import loaded_by


def test_the_default_is_s3d():
    default = Lineage()
    assert (default.method, default.copies, default.c) == ("split", 2, 1.3)
    assert (default.epsilon, default.relative) == (0.5, True)
    assert default.policy == Knapsack(growth=0.6, cost="macs")


def test_a_lineage_has_the_settings_of_growth_and_their_defaults():
    assert {f.name for f in fields(GrowthSettings)} < {f.name for f in fields(Lineage)}
    assert all(getattr(Lineage(), f.name) == getattr(GrowthSettings(), f.name) for f in fields(GrowthSettings))


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "c1.3-m2-s0"),
        ({"seed": 3}, "c1.3-m2-s3"),
        ({"c": 1.0, "copies": 4}, "c1-m4-s0"),
        ({"copies": [1, 2, 3]}, "c1.3-m23-s0"),
        ({"method": "new_neurons"}, "new_neurons-s0"),
        ({"name": "mine"}, "mine"),
    ],
)
def test_a_lineage_is_called_after_its_settings(settings, label):
    assert Lineage(**settings).label == label


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy": {"name": "top_fraction", "fraction": 0.2}, "copies": 3},
        {"copies": [1, 2, 4], "max_macs": 10**6},
        {"steps": 1, "epochs": [2, 8]},
        {"steps": 2, "policy": {"name": "knapsack", "budget": [2, 8.5]}},
    ],
)
def test_a_lineage_survives_json(settings):
    (lineage,) = lineages(settings)
    assert build(Lineage, json.loads(json.dumps(lineage.to_json())), "settings") == lineage


def test_shared_settings_and_those_that_differ():
    first, second = lineages({"steps": 2, "lineages": [{"c": 1.0}, {"policy": {"name": "top_fraction"}}]})
    assert (first.steps, first.c, second.steps, second.policy) == (2, 1.0, 2, TopFraction())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": "signed"},
            "classArgs.method: expected one of split, new_neurons.*, got 'signed', now called 'split'",
        ),
        ({"method": "new"}, "classArgs.method: .*, got 'new', now called 'new_neurons'"),
        ({"method": "both"}, "classArgs.method: expected one of split, new_neurons.*, got 'both'"),
        ({"phases": "macs"}, "classArgs: unknown key 'phases', now called 'phase_budget'"),
        ({"epochs": 0}, r"classArgs.epochs: expected whole numbers >= 1, got 0"),
        ({"epochs": [2, 0], "steps": 1}, r"classArgs.epochs: expected whole numbers >= 1, got \[2, 0\]"),
        (
            {"epochs": [2, 3], "steps": 2},
            r"classArgs.epochs: expected 3 numbers, for the seed network and 2 growth steps, got \[2, 3\]",
        ),
        (
            {"policy": {"name": "knapsack", "budget": [1, 2]}},
            r"classArgs.policy.budget: expected 5 numbers, one for each step, got \[1.0, 2.0\]",
        ),
        ({"phase_budget": "steps"}, "classArgs.phase_budget: expected one of macs, epochs, got 'steps'"),
        (
            {"policy": {"fraction": 0.2}},
            "classArgs.policy.name: expected one of top_k, top_fraction, knapsack, got None",
        ),
        ({"policy": "top_k"}, "classArgs.policy: expected a mapping, got 'top_k'"),
        ({"policy": {"name": "top_k"}}, "classArgs.policy: expected the key 'k', got none"),
        ({"policy": {"name": "top_k", "k": 0}}, "classArgs.policy.k: expected a whole number >= 1, got 0"),
        ({"method": "new_neurons", "c": 1.0}, "classArgs.c: expected it with method split.* only, got 1.0"),
        ({"method": "new_neurons", "copies": 3}, "classArgs.copies: expected 2 with method new_neurons, got 3"),
        ({"lineages": []}, r"classArgs.lineages: expected a list of settings, got \[\]"),
        ({"lineages": [{}, {}]}, "classArgs.lineages: two are called 'c1.3-m2-s0'"),
    ],
)
def test_other_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        lineages(settings)


def test_settings_are_read_without_torch():
    assert "torch" not in loaded_by("import nni_s3d.search.lineage as l; l.lineages({'seed': 1})")
