"""The mutated model spec that NNI sends to a trial, and the search space that its widths come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nni_s3d.config import build, read_json
from nni_s3d.errors import ConfigError

WIDEST = 1_000_000  # a width beyond this is a slip, and `TaskSpace` lists every value of a range


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


@dataclass(frozen=True)
class Space:
    """What every width may be: the lowest is that of the seed network, the highest the cap.

    A growth step may give a width any value between them; other strategies draw from `values`.
    """

    values: dict[str, Sequence[int]]  # ascending: a range, or the list of a choice

    @cached_property
    def low(self) -> dict[str, int]:
        """The widths of the seed network."""
        return {name: values[0] for name, values in self.values.items()}

    @cached_property
    def high(self) -> dict[str, int]:
        """The caps."""
        return {name: values[-1] for name, values in self.values.items()}

    @classmethod
    def read(cls, path: Path) -> Space:
        """Read an NNI search-space file.

        Raises:
            ConfigError: the file is missing, is no JSON, or has an entry that is no range of widths.
        """
        return cls.parse(read_json(path), str(path))

    @classmethod
    def parse(cls, content: object, where: str = "search space") -> Space:
        """Take the ranges from an NNI search space of quniform, randint and choice entries.

        Raises:
            ConfigError: an entry is of another type or holds no whole numbers >= 1.
        """
        if not isinstance(content, Mapping) or not content:
            expected = 'a mapping such as {"conv0": {"_type": "quniform", ...}}'
            raise ConfigError(f"{where}: expected {expected}, got {content!r}")
        return cls({name: _values_of(entry, f"{where}: {name}") for name, entry in content.items()})

    def check(self, widths: Mapping[str, Any], where: str = "widths") -> dict[str, int]:
        """Return widths as whole numbers in the order of the space (NNI's quniform gives 8.0 for 8).

        Raises:
            ConfigError: a width is missing, unknown, not a whole number or outside the space.
        """
        for name in (*self.low, *widths):
            if name not in widths or name not in self.low:
                trouble = "missing" if name not in widths else "not in the search space"
                raise ConfigError(f"{where}: {name!r} is {trouble}; expected {', '.join(self.low)}")
        for name, width in widths.items():
            number = isinstance(width, (int, float)) and not isinstance(width, bool)
            if not number or not self.low[name] <= width <= self.high[name] or width != int(width):
                expected = f"a whole number from {self.low[name]} to {self.high[name]}"
                raise ConfigError(f"{where}: {name}: expected {expected}, got {width!r}")
        return {name: int(widths[name]) for name in self.low}


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


def _values_of(entry: Any, where: str) -> Sequence[int]:
    kind, values = (entry.get("_type"), entry.get("_value")) if isinstance(entry, Mapping) else (None, None)
    values = values if isinstance(values, list) else []
    quniform = kind == "quniform" and len(values) == 3
    randint = kind == "randint" and len(values) == 2
    choice = kind == "choice" and len(values) > 0
    if not (quniform or randint or choice):
        raise ConfigError(
            f"{where}: expected quniform [low, high, step], randint [low, end] or choice [...], got {entry!r}"
        )
    if any(isinstance(v, bool) or not isinstance(v, int) or not 1 <= v <= WIDEST for v in values):
        raise ConfigError(f"{where}: expected whole numbers from 1 to {WIDEST}, got {values!r}")
    if choice:
        return sorted(values)
    found = range(values[0], values[1] + 1, values[2]) if quniform else range(*values)
    if not found:
        raise ConfigError(f"{where}: expected low <= high, got {values!r}")
    if quniform and any(end % values[2] for end in values[:2]):  # NNI draws whole multiples of the step
        raise ConfigError(f"{where}: expected multiples of {values[2]}, got {values!r}")
    return found
