"""The search space: the values that every width of a network may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nni_s3d.config import read_json
from nni_s3d.errors import ConfigError

RESERVED = ("step", "lineage", "params", "macs")  # what stands beside the widths in a trial's parameters
WIDEST = 1_000_000  # a width beyond this is a slip, and `TaskSpace` lists every value of a range


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
            ConfigError: an entry is of another type or holds no whole numbers >= 1, or its name is reserved.
        """
        if not isinstance(content, Mapping) or not content:
            expected = 'a mapping such as {"conv0": {"_type": "quniform", ...}}'
            raise ConfigError(f"{where}: expected {expected}, got {content!r}")
        for name in RESERVED:
            if name in content:
                expected = f"other names than {', '.join(RESERVED)}, which trials use beside the widths"
                raise ConfigError(f"{where}: expected {expected}, got a width called {name!r}")
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
            is_number = isinstance(width, (int, float)) and not isinstance(width, bool)
            if not is_number or not self.low[name] <= width <= self.high[name] or width != int(width):
                expected = f"a whole number from {self.low[name]} to {self.high[name]}"
                raise ConfigError(f"{where}: {name}: expected {expected}, got {width!r}")
        return {name: int(widths[name]) for name in self.low}


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
    widths = range(values[0], values[1] + 1, values[2]) if quniform else range(*values)
    if not widths:
        raise ConfigError(f"{where}: expected low <= high, got {values!r}")
    if quniform and any(end % values[2] for end in values[:2]):  # NNI draws whole multiples of the step
        raise ConfigError(f"{where}: expected multiples of {values[2]}, got {values!r}")
    return widths
