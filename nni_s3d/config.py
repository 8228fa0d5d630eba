"""Turn plain dictionaries from YAML and JSON into dataclasses, strictly: a typo is an error, not a default."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nni_s3d.errors import ConfigError

T = TypeVar("T")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: expected a file, got: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: expected YAML, got: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def build(kind: type[T], values: object, where: str) -> T:
    """Make a dataclass from a mapping of its fields; nested dataclasses are made from nested mappings.

    Args:
        kind: the dataclass.
        values: {field: value}; an int is taken for a float, a list for a tuple, and nothing else is converted.
        where: what to call the mapping in an error, for instance "task.yml: training".

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; expected {', '.join(fields)}")
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in values:
            raise ConfigError(f"{where}: expected the key {name!r}, got {', '.join(map(str, values)) or 'none'}")
    hints = typing.get_type_hints(kind)
    try:
        return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})
    except ConfigError as error:
        text = str(error)
        raise error if text.startswith(where) else ConfigError(f"{where}: {text}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check one value against a type hint and convert it as `build` says."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        for alternative in arguments:
            if _fits(alternative, value):
                return _value(alternative, value, where)
    elif origin in (tuple, list) and isinstance(value, (list, tuple)):
        return origin(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    elif origin is dict and isinstance(value, dict):
        return {_value(arguments[0], k, where): _value(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    elif _fits(hint, value):
        return float(value) if hint is float else value
    raise ConfigError(f"{where}: expected {_spelled(hint)}, got {value!r}")


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type, at its outermost level."""
    outer = typing.get_origin(hint) or hint
    if outer is Any:
        return True
    if outer is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, (list, tuple) if outer is tuple else outer) and (outer is bool) == isinstance(value, bool)


def _spelled(hint: Any) -> str:
    """Say a type hint as a user of YAML would."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_spelled(alternative) for alternative in typing.get_args(hint))
    outer = typing.get_origin(hint) or hint
    return _NAMES.get(outer, getattr(outer, "__name__", str(outer)))


_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
