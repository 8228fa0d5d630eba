"""The mutated model spec that NNI sends to a trial, and the search space that its widths come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nni_s3d.config import build
from nni_s3d.errors import ConfigError


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

    values: dict[str, Sequence[int]]  # a range, or the list of a choice

    @cached_property
    def low(self) -> dict[str, int]:
        """The widths of the seed network."""
        return {name: min(values) for name, values in self.values.items()}

    @cached_property
    def high(self) -> dict[str, int]:
        """The caps."""
        return {name: max(values) for name, values in self.values.items()}

    @classmethod
    def read(cls, path: Path) -> Space:
        """Read an NNI search-space file.

        Raises:
            ConfigError: the file is missing, is no JSON, or has an entry that is no range of widths.
        """
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"{path}: expected a search-space file, got: {error.strerror}") from error
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}: expected JSON, got: {error}") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: object, where: str = "search space") -> Space:
        """Take the ranges from an NNI search space of quniform, randint and choice entries.

        Raises:
            ConfigError: an entry is of another type or holds no whole numbers >= 1.
        """
        if not isinstance(content, Mapping) or not content:
            raise ConfigError(f'{where}: expected a mapping such as {{"conv0": {{"_type": "quniform", ...}}}}')
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


def parse_spec(parameters: Mapping[str, Any], space: Space) -> Spec:
    """Read a trial's parameters: a growth spec, or plain widths from any other strategy.

    Raises:
        ConfigError: they are neither, or a width is outside the space.
    """
    if "widths" not in parameters:
        return Spec(space.check(parameters, "parameters"))
    spec = build(Spec, parameters, "parameters")
    widths = space.check(spec.widths, "parameters: widths")
    if spec.step < 0 or (spec.step > 0) != (spec.parent is not None):
        raise ConfigError(
            f"parameters: expected a parent exactly for steps above 0, got {spec.parent!r} at {spec.step}"
        )
    return Spec(widths, spec.step, spec.lineage, spec.parent, spec.params, spec.macs)


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
    quniform = kind == "quniform" and len(values) == 3 and values[2] == 1
    randint = kind == "randint" and len(values) == 2
    choice = kind == "choice" and len(values) > 0
    if not (quniform or randint or choice):
        raise ConfigError(
            f"{where}: expected quniform [low, high, 1], randint [low, end] or choice [...], got {entry!r}"
        )
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ConfigError(f"{where}: expected whole numbers >= 1, got {values!r}")
    if choice:
        return list(values)
    ends = range(values[0], values[1] + quniform)
    if not ends:
        raise ConfigError(f"{where}: expected low <= high, got {values!r}")
    return ends
