import json

import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.growth.selection.settings import TopFraction
from nni_s3d.search.read_lineages import lineages, read_lineage
from tests.fresh_process import loaded_by


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy": {"name": "top_fraction", "fraction": 0.2}, "copies": 3},
        {"copies": [1, 2, 4], "max_macs": 10**6},
        {"steps": 1, "epochs": [2, 8]},
        {"steps": 2, "policy": {"name": "knapsack", "budget": [2, 8.5]}},
        {"branches": {"s2d": {"c": 1.0}}, "front": "params"},
    ],
)
def test_a_lineage_survives_json(settings):
    (lineage,) = lineages(settings)
    assert read_lineage(json.loads(json.dumps(lineage.to_json())), "settings") == lineage


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
        ({"front": "flops", "branches": {}}, "classArgs.front: expected one of macs, params, got 'flops'"),
        ({"branches": [{"c": 1}]}, "classArgs.branches: expected a mapping or nothing, got .*"),
        ({"branches": {"a-b": {}}}, "classArgs.branches: expected names of 1 to 16 of the characters A-Z.*, got 'a-b'"),
        ({"branches": {"own": {"c": 1}}}, "classArgs.branches: expected names .*, other than 'own', got 'own'"),
        ({"branches": {"x": {"seed": 1}}}, "classArgs.branches.x: expected some of .*, got 'seed'"),
        ({"branches": {"x": {"c": 1.3}}}, "classArgs.branches.x: expected another way than own, got the same settings"),
        (
            {"branches": {"x": {"c": 1}, "y": {"c": 1.0}}},
            "classArgs.branches.y: expected another way than x, got the same settings",
        ),
        ({"front": "params"}, "classArgs.front: expected it with branches or keep: front only, got 'params'"),
        (
            {"branches": {"x": {"c": 1}}, "lineages": [{"name": "a"}, {"name": "a.1-x"}]},
            "classArgs.lineages: name: expected a name that no branch of 'a' may have, got 'a.1-x'",
        ),
        ({"branches": {"x": {"steps": 2}}}, "classArgs.branches.x: expected some of c, copies, .*, got 'steps'"),
        ({"branches": {"x": {"solver": "exact"}}}, "classArgs.branches.x: expected some of .*, got 'solver'"),
        ({"branches": {"x": {"c": 0.5}}}, "classArgs.branches.x.c: expected a number >= 1.*, got 0.5"),
        (
            {"branches": {"a_long_name": {"c": 1}}, "steps": 15},
            "classArgs: branches of c1.3-m2-s0: expected shorter names or fewer steps, so .* 200 .*, got up to 226",
        ),
        ({"lineages": []}, r"classArgs.lineages: expected a list of settings, got \[\]"),
        ({"lineages": [{}, {}]}, "classArgs.lineages: two are called 'c1.3-m2-s0'"),
    ],
)
def test_other_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        lineages(settings)


def test_settings_are_read_without_torch():
    assert "torch" not in loaded_by("import nni_s3d.search.read_lineages as l; l.lineages({'seed': 1})")
