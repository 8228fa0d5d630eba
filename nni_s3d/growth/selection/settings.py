"""The settings of a selection: the policies, and the numbers of copies with c and the triplet.

A tuner process reads these settings, so this file imports no torch. `policies.py` has the algorithms.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Protocol

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.cost_names import COSTS

COPIES = (2, 3, 4)  # m of Theorems 2.1, 2.2 and 2.3
TRIPLETS = ("optimal", "paper")
LARGEST_C = 1e6  # output weights beyond it overflow


@dataclass(frozen=True)
class SchemeSettings:
    """Which splitting schemes a neuron may take.

    Attributes:
        copies: m, one of 2, 3 and 4, or a set of 1, 2, 3 and 4 from which `Knapsack` takes the best for each neuron.
        c: bound on sum_j |w_j|, at least 1; 1 is S2D.
        triplet: scheme of three copies, "optimal" or "paper" (Theorem 2.2 as published).

    Raises:
        ConfigError: copies, c or triplet is out of range.
    """

    copies: int | Collection[int] = 2
    c: float = 1.3
    triplet: str = "optimal"

    def __post_init__(self) -> None:
        copy_choices(self.copies)
        check_c(self.c)
        check_triplet(self.triplet)

    @property
    def choices(self) -> tuple[int, ...]:
        """The allowed numbers of copies in ascending order, without 1: not to split is always allowed."""
        return copy_choices(self.copies)


@dataclass(frozen=True)
class TopK:
    """Split the k neurons of most negative gain, as far as G <= -eta (Section 2.1).

    Raises:
        ConfigError: a setting is out of range.
    """

    name: ClassVar[str] = "top_k"
    k: int
    eta: float = 0.0

    def __post_init__(self) -> None:
        require(isinstance(self.k, int) and is_number(self.k) and self.k >= 1, "k", "a whole number >= 1", self.k)
        require(is_number(self.eta) and self.eta >= 0, "eta", "a number >= 0", self.eta)


@dataclass(frozen=True)
class TopFraction:
    """Split this fraction of all splittable neurons, rounded down but at least one (Section 4).

    Raises:
        ConfigError: the fraction is out of range.
    """

    name: ClassVar[str] = "top_fraction"
    fraction: float = 0.35

    def __post_init__(self) -> None:
        require(is_number(self.fraction) and 0 < self.fraction <= 1, "fraction", "a number in (0, 1]", self.fraction)


@dataclass(frozen=True)
class Knapsack:
    """Take the largest total gain that a budget allows, each neuron with its own number of copies (Appendix C.1).

    Up to 600 choices that gain are chosen from by an integer program, to one part in 10^4 at fixed prices. More are
    sorted by gain per cost: the linear relaxation rounded down, which misses the best by less than one step's gain. A
    step is that of one neuron. Where channels are cut into parts that must stay equally large, such as the blocks of a
    grouped convolution, it is one that all parts take together, each with its best neurons. The grown network never
    costs more than the budget.

    Attributes:
        budget: what the grown network may cost at most, or a rising list, one number for each growth step, or None.
        cost: "macs", "params", "flops" (per sample) or "neurons".
        growth: the budget as a fraction by which the cost may grow, instead of `budget`: 0.35 allows 35% more.
        relaxed: sort however few choices there are, which takes no time. Only where cuts overlap so that parts may
            grow in several ratios, as in a ShuffleNet, small integer programs list ways of those parts to grow; no gap
            to the best is promised there.

    Raises:
        ConfigError: a setting is out of range, or not exactly one of budget and growth is given.
    """

    name: ClassVar[str] = "knapsack"
    budget: float | list[float] | None = None
    cost: str = "macs"
    growth: float | None = None
    relaxed: bool = False

    def __post_init__(self) -> None:
        one = (self.budget is None) != (self.growth is None)
        require(one, "budget", "either budget or growth", {"budget": self.budget, "growth": self.growth})
        budgets = self.budget if isinstance(self.budget, list) else [self.budget]
        if isinstance(self.budget, list):
            rise = all(map(is_number, budgets)) and budgets == sorted({*budgets}) != []
            require(rise, "budget", "one number for each step, larger than that before", budgets)
        for name, limit in (*(("budget", budget) for budget in budgets), ("growth", self.growth)):
            require(limit is None or (is_number(limit) and limit > 0), name, "a number > 0", limit)
        require(self.cost in COSTS, "cost", f"one of {', '.join(COSTS)}", self.cost)
        require(isinstance(self.relaxed, bool), "relaxed", "True or False", self.relaxed)

    def at(self, step: int) -> Knapsack:
        """Return the knapsack of a growth step, counted from 0; beyond a list of budgets, the last one holds."""
        if not isinstance(self.budget, list):
            return self
        return replace(self, budget=self.budget[min(step, len(self.budget) - 1)])


class CustomPolicy(Protocol):
    """A policy of a user's own."""

    def choose(self, candidates: Any) -> Any:
        """Return copies (channels,) >= 1, an int64 tensor, of `candidates.Candidates`."""


Policy = TopK | TopFraction | Knapsack | CustomPolicy
POLICIES: dict[str, type[Any]] = {policy.name: policy for policy in (TopK, TopFraction, Knapsack)}


def check_policy(policy: object) -> None:
    """Raise ConfigError unless this is a policy: one of `POLICIES`, or an object with a method `choose`."""
    known = isinstance(policy, tuple(POLICIES.values()))
    custom = callable(getattr(policy, "choose", None)) and not isinstance(policy, type)
    require(known or custom, "policy", "a policy such as TopFraction(0.35)", policy)


def check_copies(copies: int) -> None:
    """Raise ConfigError unless `copies` is 2, 3 or 4."""
    whole = isinstance(copies, int) and not isinstance(copies, bool)
    require(whole and copies in COPIES, "copies", "2, 3 or 4 (more never gain more, Theorem 2.3)", copies)


def check_c(c: float) -> None:
    """Raise ConfigError unless c is a number of at least 1, and not so large that output weights overflow."""
    fits = is_number(c) and 1 <= c <= LARGEST_C
    require(fits, "c", f"a number >= 1 (1 is S2D) and <= {LARGEST_C:g}", c)


def check_triplet(triplet: str) -> None:
    """Raise ConfigError unless there is such a triplet."""
    require(triplet in TRIPLETS, "triplet", f"one of {', '.join(TRIPLETS)}", triplet)


def copy_choices(copies: int | Collection[int]) -> tuple[int, ...]:
    """Return the allowed numbers of copies in ascending order, without 1 (not splitting is always allowed).

    Raises:
        ConfigError: anything else than 2, 3, 4 or a collection of 1, 2, 3 and 4 with at least one of the last three.
    """
    if not isinstance(copies, Collection) or isinstance(copies, (str, Mapping)):
        check_copies(copies)  # type: ignore[arg-type]
        return (copies,)  # type: ignore[return-value]
    for choice in copies:
        if isinstance(choice, bool) or choice != 1:
            check_copies(choice)
    choices = tuple(sorted(set(copies) - {1}))
    require(bool(choices), "copies", "at least one of 2, 3 and 4", copies)
    return choices


def is_number(value: object) -> bool:
    """Whether this is a finite number that a float can hold; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def require(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise ConfigError, "name: expected X, got Y", unless a condition holds."""
    if not holds:
        raise ConfigError(f"{name}: expected {expected}, got {got!r}")
