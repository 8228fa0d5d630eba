"""A lineage: a chain of growth steps with one set of growth hyper-parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.growth.loop import GrowthSettings
from nni_s3d.growth.selection.settings import POLICIES, Policy, copy_choices
from nni_s3d.search.spec import check_name
from nni_s3d.tasks.training import Recipe

PHASES = ("macs", "epochs")


@dataclass(frozen=True)
class Lineage:
    """What a user may set for one lineage; a JSON object with these keys is the same thing."""

    name: str = ""  # how it is called in the web UI and the store; by default made of the settings
    steps: int = 5  # growth steps at most
    epochs: int | None = None  # of the seed network; by default those of the task
    phases: str = "macs"  # larger networks are trained for as many MACs as the seed, or "epochs": for as many epochs
    method: str = "new"  # or "signed", see `nni_s3d.Growth`
    seed: int = 0  # of the first weights, the order of the samples, new neurons and the eigensolver
    copies: int | list[int] = 2  # 2, 3 or 4, or a list such as [1, 2, 3, 4] for a mixed knapsack
    c: float = 1.3  # 1 is S2D
    triplet: str = "optimal"
    epsilon: float = 0.01
    relative: bool = False  # epsilon in units of each neuron's |theta|
    policy: dict[str, Any] = field(default_factory=lambda: {"name": "knapsack", "growth": 0.6, "cost": "macs"})
    max_params: int | None = None
    max_macs: int | None = None
    solver: str = "auto"
    smoothing: float = 3.0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"steps: expected a whole number >= 0, got {self.steps!r}")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"epochs: expected a whole number >= 1, got {self.epochs!r}")
        if self.phases not in PHASES:
            raise ConfigError(f"phases: expected one of {', '.join(PHASES)}, got {self.phases!r}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected a whole number >= 0 and < 2**63, got {self.seed!r}")
        if self.name:
            check_name(self.name, "name")
        self.growth()  # every other setting is checked where it is used

    @property
    def label(self) -> str:
        """The name that specs and the web UI show."""
        copies = "".join(map(str, copy_choices(self.copies)))
        kind = f"c{self.c:g}-m{copies}" if self.method == "signed" else self.method
        return self.name or f"{kind}-s{self.seed}"

    def growth(self) -> GrowthSettings:
        """Return the hyper-parameters of its growth steps."""
        return GrowthSettings(
            policy=_policy(self.policy),
            copies=self.copies,
            **{name: getattr(self, name) for name in _SHARED},
        )

    def recipe(self, task: Recipe, share: float) -> Recipe:
        """Return how a network is trained.

        Args:
            task: how the task trains networks.
            share: MACs of the seed network in units of those of this one.
        """
        epochs = self.epochs or task.epochs
        if self.phases == "macs":
            epochs = max(1, round(epochs * share))
        return dataclasses.replace(task, epochs=epochs, warmup_epochs=task.warmup_epochs * epochs / task.epochs)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON, for `lineage`."""
        return dataclasses.asdict(self)


_SHARED = ("method", "c", "triplet", "epsilon", "relative", "max_params", "max_macs", "solver", "smoothing")


def lineages(settings: Mapping[str, Any], where: str = "classArgs") -> list[Lineage]:
    """Read the settings of a tuner or strategy: shared ones, and a list `lineages` of what differs.

    Raises:
        ConfigError: an unknown key, a wrong type, a value out of range, or two lineages of one name.
    """
    shared = {key: value for key, value in settings.items() if key != "lineages"}
    several = settings.get("lineages")
    if several is None:
        return [build(Lineage, shared, where)]
    if not isinstance(several, Sequence) or isinstance(several, str) or not several:
        raise ConfigError(f"{where}.lineages: expected a list of settings, got {several!r}")
    made = []
    for i, own in enumerate(several):
        if not isinstance(own, Mapping):
            raise ConfigError(f"{where}.lineages[{i}]: expected a mapping, got {own!r}")
        made.append(build(Lineage, {**shared, **own}, f"{where}.lineages[{i}]"))
    labels = [lineage.label for lineage in made]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"{where}.lineages: two are called {label!r}; give each a name of its own")
    return made


def settings_path(label: str) -> str:
    """Return where a store keeps the settings of a lineage."""
    return f"lineages/{label}.json"


def state_path(label: str) -> str:
    """Return where a store keeps how far a lineage has come."""
    return f"lineages/{label}/state.json"


def trial_path(label: str, step: int) -> str:
    """Return where a store says which NNI trial runs a growth step."""
    return f"lineages/{label}/{step}.trial.json"


def outcome_path(label: str, step: int) -> str:
    """Return where a store says what came of a growth step."""
    return f"lineages/{label}/{step}.json"


def _policy(settings: Mapping[str, Any]) -> Policy:
    name = settings.get("name")
    if not isinstance(name, str) or name not in POLICIES:
        raise ConfigError(f"policy.name: expected one of {', '.join(POLICIES)}, got {name!r}")
    policy: Policy = build(POLICIES[name], {k: v for k, v in settings.items() if k != "name"}, "policy")
    return policy
