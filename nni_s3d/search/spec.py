"""The mutated model spec that NNI sends to a trial."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.tasks.search_space import Space


@dataclass(frozen=True)
class Spec:
    """What a trial trains: this is what a person reads in the web UI.

    A growth step names the parent whose weights and plan it starts from; a spec of any other strategy has widths only
    and is trained from scratch.
    """

    widths: dict[str, int]
    step: int = 0
    lineage: str | None = None
    parent: str | None = None  # key of the parent's artefacts in the store; None for a seed
    params: int | None = None  # of the network with these widths, where they are known
    macs: int | None = None

    def __post_init__(self) -> None:
        for what, name in (("lineage", self.lineage), ("parent", self.parent)):
            if name is not None:
                check_name(name, what)
        if self.step < 0 or (self.step > 0) != (self.parent is not None):
            raise ConfigError(f"parent: expected one exactly for steps above 0, got {self.parent!r} at {self.step}")
        if self.parent is not None and self.lineage is None:
            raise ConfigError(f"lineage: expected one beside the parent {self.parent!r}, got none")

    def to_json(self) -> dict[str, Any]:
        """Return the parameters of the NNI trial."""
        order = ("step", "lineage", "parent", "widths", "params", "macs")
        fields = asdict(self)
        return {name: fields[name] for name in order}


def parse_spec(parameters: object, space: Space, where: str = "parameters") -> Spec:
    """Read a trial's parameters: a growth spec, or plain widths from any other strategy.

    Raises:
        ConfigError: they are neither, or a width is outside the space.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {parameters!r}")
    if "widths" not in parameters:
        return Spec(space.check(parameters, where))
    spec = build(Spec, parameters, where)
    return replace(spec, widths=space.check(spec.widths, f"{where}: widths"))


def check_name(name: str, what: str) -> None:
    """Raise ConfigError unless a name can be a part of paths in a store, and stay inside it."""
    if not re.fullmatch(_NAME, name):
        expected = "1 to 64 of the characters A-Z, a-z, 0-9 and ._+-, without . at the beginning or .json at the end"
        raise ConfigError(f"{what}: expected {expected}, got {name!r}")


_NAME = r"(?!\.)[A-Za-z0-9._+-]{1,64}(?<!\.json)"


# What NNI calls a sample of a model space is flat: an entry for every width, and one more, which is None for a network
# that is trained from scratch, as NNI's own strategies draw it, or the rest of a growth step.
GROWTH = "growth"


def to_sample(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sample for a trial with the parameters of a growth step."""
    return {**parameters["widths"], GROWTH: {name: value for name, value in parameters.items() if name != "widths"}}


def from_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's parameters: those of a growth step, or plain widths."""
    widths = {name: value for name, value in sample.items() if name != GROWTH}
    growth = sample.get(GROWTH)
    return widths if growth is None else {**growth, "widths": widths}
