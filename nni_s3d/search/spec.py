"""The mutated model spec that NNI sends to a trial. It is flat, so that NNI draws the widths of all strategies alike.

{"conv0": 14, "pw1": 11, ..., "step": 2, "lineage": "c1.3-m2-s0", "params": 30211, "macs": 1203456}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError
from nni_s3d.tasks.search_space import RESERVED, Space

LONGEST_NAME = 200  # of a lineage, which is a part of paths


@dataclass(frozen=True)
class Spec:
    """What a trial trains.

    A growth step names its lineage; the store knows its parent, the step before. A spec of any other strategy has
    widths only and is trained from scratch.
    """

    widths: dict[str, int]
    step: int = 0
    lineage: str | None = None
    params: int | None = None  # of the network with these widths, where they are known
    macs: int | None = None  # per sample

    def __post_init__(self) -> None:
        if self.lineage is not None:
            check_name(self.lineage, "lineage")
        if self.step < 0 or (self.step > 0 and self.lineage is None):
            raise ConfigError(f"step: expected 0, or a number > 0 beside a lineage, got {self.step!r}")

    def to_parameters(self) -> dict[str, Any]:
        """Return the parameters of the NNI trial, for `parse_spec`."""
        return {**self.widths, **{name: getattr(self, name) for name in RESERVED}}


def parse_spec(parameters: object, space: Space, where: str = "parameters") -> Spec:
    """Read a trial's parameters: a growth step, or plain widths from any other strategy.

    Raises:
        ConfigError: they are neither, a width is outside the space, or they were written by an older version.
    """
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {parameters!r}")
    if isinstance(parameters.get("widths"), Mapping):
        raise ConfigError(
            f"{where}: expected one entry for every width, got them nested under 'widths', as an older version of "
            "nni_s3d wrote them; start again with a new store"
        )
    growth = {name: parameters[name] for name in RESERVED if parameters.get(name) is not None}
    return build(Spec, {"widths": space.check(widths_of(parameters), where), **growth}, where)


def widths_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the widths among a trial's parameters, in their order."""
    return {name: value for name, value in parameters.items() if name not in RESERVED}


def check_name(name: str, where: str) -> None:
    """Raise ConfigError unless a name can be a part of paths in a store, and stay inside it."""
    if not re.fullmatch(_NAME, name):
        expected = f"1 to {LONGEST_NAME} of the characters A-Z, a-z, 0-9 and ._+-"
        expected += ", without . at the beginning or .json at the end"
        raise ConfigError(f"{where}: expected {expected}, got {name!r}")


_NAME = rf"(?!\.)[A-Za-z0-9._+-]{{1,{LONGEST_NAME}}}(?<!\.json)"
