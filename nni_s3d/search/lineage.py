"""A lineage: a chain of growth steps with one set of growth hyper-parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nni_s3d.errors import ConfigError
from nni_s3d.growth.selection.settings import Knapsack
from nni_s3d.growth.settings import GrowthSettings
from nni_s3d.search.spec import check_name

TUNER = "nni_s3d.plugin.tuner.S3DTuner"  # what grows lineages under NNI
PHASE_BUDGETS = ("macs", "epochs")
ALL_STEPS_ARE_DONE = "all steps are done"  # why the last network of a lineage has no plan, until it gets more steps
KEEP = ("all", "front", "newest")
FRONTS = ("macs", "params")


@dataclass(frozen=True)
class Lineage(GrowthSettings):
    """What a user may set for one lineage: the growth hyper-parameters, and those of the chain.

    A JSON object with these keys is the same thing, as `classArgs` of the tuner are.

    Raises:
        ConfigError: a setting is out of range.
    """

    name: str = ""  # in the web UI and the store; by default made of the settings
    steps: int = 5  # growth steps at most
    epochs: int | list[int] | None = None  # of the seed network, or of every step; by default those of the task
    phase_budget: str = "macs"  # epochs are counted in MACs of the seed network, or are "epochs" of every network
    seed: int = 0  # of the first weights, the order of the samples, all random growth and the eigensolver
    branches: dict[str, dict[str, Any]] | None = None  # {name: settings that differ}, see `search.branches`
    front: str = "macs"  # or "params": with branches or keep="front", the cost against which accuracy is judged
    keep: str = "all"  # whose weights stay in the store: all networks', or the "newest", or the newest and the "front"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0:
            raise ConfigError(f"steps: expected a whole number >= 0, got {self.steps!r}")
        if self.phase_budget not in PHASE_BUDGETS:
            raise ConfigError(f"phase_budget: expected one of {', '.join(PHASE_BUDGETS)}, got {self.phase_budget!r}")
        if self.keep not in KEEP:
            raise ConfigError(f"keep: expected one of {', '.join(KEEP)}, got {self.keep!r}")
        if self.branches is None and self.keep != "front" and self.front != Lineage.front:
            raise ConfigError(f"front: expected it with branches or keep: front only, got {self.front!r}")
        if self.front not in FRONTS:
            raise ConfigError(f"front: expected one of {', '.join(FRONTS)}, got {self.front!r}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected a whole number >= 0 and < 2**63, got {self.seed!r}")
        if self.name:
            check_name(self.name, "name")
        self._check_epochs()
        budgets = self.policy.budget if isinstance(self.policy, Knapsack) else None
        if isinstance(budgets, list) and len(budgets) != self.steps:
            raise ConfigError(f"policy.budget: expected {self.steps} numbers, one for each step, got {budgets!r}")

    def _check_epochs(self) -> None:
        if self.epochs is None:
            return
        if not all(epochs >= 1 for epochs in (self.epochs if isinstance(self.epochs, list) else [self.epochs])):
            raise ConfigError(f"epochs: expected whole numbers >= 1, got {self.epochs!r}")
        if isinstance(self.epochs, list) and len(self.epochs) != self.steps + 1:
            expected = f"{self.steps + 1} numbers, for the seed network and {self.steps} growth steps"
            raise ConfigError(f"epochs: expected {expected}, got {self.epochs!r}")

    @property
    def label(self) -> str:
        """The name that specs and the web UI show."""
        copies = "".join(map(str, self.schemes.choices))
        kind = f"c{self.c:g}-m{copies}" if self.method == "split" else self.method
        return self.name or f"{kind}-s{self.seed}"

    def epochs_of(self, step: int) -> int | None:
        """Return how many epochs the phase of a step has, counted as `phase_budget` says; None: those of the task."""
        return self.epochs[step] if isinstance(self.epochs, list) else self.epochs

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON, for `build`; all but what is kept, which no network depends on."""
        policy: Any = self.policy
        settings = dataclasses.asdict(self) | {"policy": {"name": policy.name, **dataclasses.asdict(policy)}}
        del settings["keep"]
        if self.branches is None:  # as older versions wrote it, so that their stores go on
            del settings["branches"], settings["front"]
        return settings


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
