"""The settings of a growth step. A tuner process reads these settings, so this file imports no PyTorch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TypeVar

from nni_s3d.errors import ConfigError
from nni_s3d.growth.eigen.solver_names import SOLVERS
from nni_s3d.growth.selection.settings import (
    Knapsack,
    Policy,
    SchemeSettings,
    TopFraction,
    TopK,
    check_policy,
    is_number,
    require,
)

T = TypeVar("T", bound="GrowthSettings")
METHODS = ("split", "new_neurons", "random", "net2net")
_OLD_NAMES = {"signed": "split", "new": "new_neurons"}
# Settings that change nothing with a method are refused with it.
UNUSED: dict[str, tuple[str, ...]] = {
    "split": (),
    "new_neurons": ("c", "triplet", "epsilon", "relative", "solver", "smoothing"),
    "random": ("c", "triplet", "solver", "smoothing"),
    "net2net": ("c", "triplet", "solver", "smoothing"),
}
LARGEST = 1e6  # of a length of a split or a smoothness that float32 can still work with


@dataclass(frozen=True)
class GrowthSettings:
    """The hyper-parameters of a growth step (Algorithm 1, step 2).

    The defaults are S3D: both ends of every neuron's spectrum, selection by gain under a budget of MACs, signed splits.
    Their length, and what is done to the weights then, did best in docs/growing_pays.md. The paper's experiments have
    ``policy=TopFraction(0.35)``, ``epsilon=0.01``, ``relative=False``, ``shrink=1`` and ``perturb=0``.

    Raises:
        ConfigError: a setting is out of range, or would change nothing with this method.
    """

    method: str = "split"  # along eigenvectors; or "new_neurons", or "random" or "net2net" splits, see `random_splits`
    policy: Policy = field(default_factory=lambda: Knapsack(growth=0.6, cost="macs"))  # which neurons
    copies: int | Collection[int] = 2  # m: 2, 3 or 4, or several, such as [1, 2, 3, 4], for a mixed knapsack
    c: float = 1.3  # bound on the sum of |w_j|; 1 is S2D
    triplet: str = "optimal"  # or "paper", Theorem 2.2 as published
    epsilon: float = 0.5  # length of a split
    relative: bool = True  # epsilon is in units of each neuron's |theta|
    shrink: float = 0.5  # the weights of a grown network are multiplied by this, see `shrink_and_perturb`
    perturb: float = 0.1  # noise on these weights, in their standard deviations
    max_params: int | None = None  # stop before a network gets larger than this
    max_macs: int | None = None
    solver: str = "auto"  # of eigenpairs
    smoothing: float = 3.0  # sharpness of the softplus that lends piecewise-linear activations its curvature

    def __post_init__(self) -> None:
        if self.method in _OLD_NAMES:
            new = _OLD_NAMES[self.method]
            raise ConfigError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}, now called {new!r}")
        require(self.method in METHODS, "method", f"one of {', '.join(METHODS)}", self.method)
        check_policy(self.policy)
        choices = self.schemes.choices
        if len(choices) > 1 and isinstance(self.policy, (TopK, TopFraction)):
            raise ConfigError(f"copies: a mixed choice needs a knapsack, got {self.copies!r} and {self.policy}")
        epsilon = is_number(self.epsilon) and 0 <= self.epsilon <= LARGEST
        smoothing = is_number(self.smoothing) and 0 < self.smoothing <= LARGEST
        require(epsilon, "epsilon", f"a number >= 0 and <= {LARGEST:g}", self.epsilon)
        require(smoothing, "smoothing", f"a number > 0 and <= {LARGEST:g}", self.smoothing)
        shrink = is_number(self.shrink) and 0 < self.shrink <= 1
        perturb = is_number(self.perturb) and 0 <= self.perturb <= LARGEST
        require(shrink, "shrink", "a number > 0 and <= 1", self.shrink)
        require(perturb, "perturb", f"a number >= 0 and <= {LARGEST:g}", self.perturb)
        require(self.solver in SOLVERS, "solver", f"one of {', '.join(SOLVERS)}", self.solver)
        require(isinstance(self.relative, bool), "relative", "True or False", self.relative)
        for name in ("max_params", "max_macs"):
            limit = getattr(self, name)
            require(limit is None or (is_number(limit) and limit > 0), name, "a number > 0", limit)
        self._refuse_unused(choices)

    @property
    def schemes(self) -> SchemeSettings:
        """The splitting schemes that a neuron may take."""
        return SchemeSettings(self.copies, self.c, self.triplet)

    def at(self: T, step: int) -> T:
        """Return the settings of one growth step, counted from 0, of a policy that may differ from step to step."""
        return replace(self, policy=self.policy.at(step)) if isinstance(self.policy, Knapsack) else self

    def _refuse_unused(self, choices: tuple[int, ...]) -> None:
        if self.method != "split" and choices != (2,):
            raise ConfigError(f"copies: expected 2 with method {self.method}, got {self.copies!r}")
        for name in UNUSED[self.method]:
            if (value := getattr(self, name)) != getattr(GrowthSettings, name):
                methods = ", ".join(method for method in METHODS if name not in UNUSED[method])
                raise ConfigError(f"{name}: expected it with method {methods} only, got {value!r} with {self.method}")
