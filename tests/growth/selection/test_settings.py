"""What may be set: every policy, copies, c and triplet; wrong values are refused by name, and torch is not loaded."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import nni_s3d as s3d
from nni_s3d import ConfigError, Knapsack, TopFraction, TopK
from nni_s3d.growth.selection.settings import (
    POLICIES,
    SchemeSettings,
    check_c,
    check_copies,
    check_policy,
    check_triplet,
    copy_choices,
    is_number,
    require,
)


def test_a_tuner_reads_settings_without_torch():
    """With a package nni_s3d that imports nothing, since its own public names do."""
    program = """
import sys, types
package = types.ModuleType("nni_s3d")
package.__path__ = [sys.argv[1]]
sys.modules["nni_s3d"] = package
from nni_s3d.growth.selection.settings import Knapsack, SchemeSettings
Knapsack(growth=0.6), SchemeSettings({1, 2, 3, 4}, 1.3, "paper")
print(sorted({"torch", "numpy", "scipy", "nni"} & set(sys.modules)))
"""
    folder = Path(s3d.__file__).parent
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_policies_by_name():
    assert {"top_k": TopK, "top_fraction": TopFraction, "knapsack": Knapsack} == POLICIES
    assert (s3d.TopK, s3d.TopFraction, s3d.Knapsack) == tuple(POLICIES.values())
    assert [TopK(2).name, TopFraction().name, Knapsack(9).name] == list(POLICIES)
    assert TopFraction() == TopFraction(0.35) != TopFraction(0.4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TopK(0), "k: expected a whole number >= 1, got 0"),
        (lambda: TopK(2.5), "k: expected a whole number >= 1, got 2.5"),
        (lambda: TopK(1, eta=-1), "eta: expected a number >= 0, got -1"),
        (lambda: TopFraction(0), r"fraction: expected a number in \(0, 1\], got 0"),
        (lambda: TopFraction(1.1), r"fraction: expected a number in \(0, 1\], got 1.1"),
        (lambda: TopK(True), "k: expected a whole number >= 1, got True"),
        (lambda: TopK(1, "a"), "eta: expected a number >= 0, got 'a'"),
        (lambda: TopFraction("a"), r"fraction: expected a number in \(0, 1\], got 'a'"),
        (lambda: TopFraction(True), r"fraction: expected a number in \(0, 1\], got True"),
        (lambda: Knapsack(), "budget: expected either budget or growth, got {'budget': None, 'growth': None}"),
        (lambda: Knapsack(1, growth=1), "budget: expected either budget or growth, got {'budget': 1, 'growth': 1}"),
        (lambda: Knapsack("9"), "budget: expected a number > 0, got '9'"),
        (lambda: TopFraction(10**400), r"fraction: expected a number in \(0, 1\], got 1000"),
        (lambda: Knapsack(True), "budget: expected a number > 0, got True"),
        (lambda: Knapsack(growth=float("inf")), "growth: expected a number > 0, got inf"),
        (lambda: Knapsack(1, relaxed="no"), "relaxed: expected True or False, got 'no'"),
        (lambda: Knapsack(0), "budget: expected a number > 0, got 0"),
        (lambda: Knapsack(growth=-1), "growth: expected a number > 0, got -1"),
        (lambda: Knapsack([]), r"budget: expected one number for each step, .*, got \[\]"),
        (lambda: Knapsack([1, 1]), r"budget: expected one number for each step, larger than that before, got \[1, 1\]"),
        (lambda: Knapsack([1, None]), r"budget: expected one number for each step, .*, got \[1, None\]"),
        (lambda: Knapsack([-1, 2]), "budget: expected a number > 0, got -1"),
        (lambda: Knapsack(growth=[1]), r"growth: expected a number > 0, got \[1\]"),
        (lambda: Knapsack(1, "time"), "cost: expected one of params, macs, flops, neurons, got 'time'"),
        (lambda: Knapsack(10**400), "budget: expected a number > 0, got 1000"),
    ],
)
def test_wrong_policies_are_refused(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


def test_every_growth_step_may_have_a_budget_of_its_own():
    policy = Knapsack([10, 20], "params")
    assert [policy.at(step) for step in range(3)] == [Knapsack(b, "params") for b in (10, 20, 20)]
    assert Knapsack(growth=0.3).at(1) == Knapsack(growth=0.3)


def test_copy_choices():
    assert copy_choices(3) == (3,)
    assert copy_choices({4, 1, 2}) == (2, 4)
    assert copy_choices([3, 3, 2]) == (2, 3)


@pytest.mark.parametrize("copies", [{1}, [], ()])
def test_copy_choices_without_a_choice_are_refused(copies):
    with pytest.raises(ConfigError, match="copies: expected at least one of 2, 3 and 4"):
        copy_choices(copies)


@pytest.mark.parametrize("copies", [{1, 5}, [0], "23", 1, [2, "3"], [[2]], [True, 2], {2: 1}])
def test_wrong_copy_choices_are_refused(copies):
    with pytest.raises(ConfigError, match="copies: expected 2, 3 or 4"):
        copy_choices(copies)


def test_copies_c_and_triplet_are_one_value():
    assert SchemeSettings() == SchemeSettings(2, 1.3, "optimal")
    assert SchemeSettings({1, 4, 2}).choices == (2, 4)
    assert SchemeSettings(3, 1, "paper").choices == (3,)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"copies": 5}, "copies: expected 2, 3 or 4 .*, got 5"),
        ({"copies": {1}}, "copies: expected at least one of 2, 3 and 4, got {1}"),
        ({"c": 0.5}, "c: expected a number >= 1 .*, got 0.5"),
        ({"triplet": "best"}, "triplet: expected one of optimal, paper, got 'best'"),
    ],
)
def test_wrong_scheme_settings_are_refused(settings, match):
    with pytest.raises(ConfigError, match=f"^{match}"):
        SchemeSettings(**settings)


def test_each_check_refuses_alone():
    check_copies(4), check_c(1), check_triplet("paper")
    for check, wrong in ((check_copies, 1), (check_c, 0.9), (check_triplet, None)):
        with pytest.raises(ConfigError, match=f"expected .*, got {wrong!r}"):
            check(wrong)


def test_a_policy_is_one_of_ours_or_chooses_by_itself():
    class Own:
        def choose(self, candidates):
            return torch.ones(candidates.graph.num_channels, dtype=torch.int64)

    for policy in (TopK(1), TopFraction(), Knapsack(growth=0.1), Own()):
        check_policy(policy)
    for wrong in (None, "top_k", Own, TopK):
        with pytest.raises(ConfigError, match=r"policy: expected a policy such as TopFraction\(0.35\), got"):
            check_policy(wrong)


@pytest.mark.parametrize("value", [0, -1.5, np.float32(2), np.int64(3), Fraction(1, 3)])
def test_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [True, np.True_, "1", None, float("nan"), float("inf"), 10**400, 1j, torch.ones(1)])
def test_what_is_no_number(value):
    assert not is_number(value)


def test_a_condition_that_does_not_hold_is_named():
    require(True, "k", "a number", "a")
    with pytest.raises(ConfigError, match=r"^k: expected a number, got 'a'$"):
        require(False, "k", "a number", "a")
