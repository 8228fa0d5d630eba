"""How the values of options are written."""

from __future__ import annotations

import math

from nni_s3d.errors import ConfigError

_FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def sizes(text: str) -> tuple[int, ...]:
    """Read the shape of an input."""
    found = tuple(int(word) for word in text.split(","))
    if min(found) < 1:
        raise ValueError
    return found


def count(text: str) -> float:
    """Read a number > 0, with a unit if it is large."""
    value = float(text[:-1]) * _FACTORS[text[-1]] if text[-1:] in _FACTORS else float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def at_least_one(text: str) -> int:
    """Read a number of things of which there must be some."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


# What argparse calls them.
sizes.__name__ = "shape such as 1,3,224,224"
at_least_one.__name__ = "whole number >= 1"
count.__name__ = "number such as 300000 or 1.2M"


def setting(text: str) -> tuple[str, object]:
    """Read KEY=VALUE, the value as in a task.yml.

    Raises:
        ConfigError: it is something else.
    """
    from nni_s3d.config import parse_yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set: expected KEY=VALUE, got {text!r}")
    try:
        return key, parse_yaml(value)
    except ValueError as error:
        raise ConfigError(f"--set: {key}: expected a value as in YAML, got {value!r}") from error
