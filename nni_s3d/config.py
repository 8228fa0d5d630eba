"""Turn plain dictionaries from YAML and JSON into dataclasses, strictly: a typo is an error, not a default."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nni_s3d.errors import ConfigError

T = TypeVar("T")
_MOST_PARTS = 1e6  # of what a file says


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which no key stands twice."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key[1]!r} twice{node.start_mark}")
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    content = _read(path, "YAML", parse_yaml)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def parse_yaml(text: str) -> Any:
    """Return what YAML says, in plain Python values.

    Raises:
        ValueError: it says nothing that is plain, or stands for a value of more than a million parts.
    """
    try:
        content = yaml.load(text, _Loader)
    except Exception as error:  # constructors of YAML's own types fail in many ways
        raise ValueError(str(error) or type(error).__name__) from error
    if _parts(content, {}) > _MOST_PARTS:
        raise ValueError("aliases that stand for more than a million values")
    return content


def _parts(content: Any, known: dict[int, float]) -> float:
    """Return of how many values a value consists; what contains itself has no end of them."""
    if not isinstance(content, (dict, list)):
        return 1
    if id(content) not in known:
        known[id(content)] = math.inf  # while its parts are counted
        within = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_parts(part, known) for part in within)
    return known[id(content)]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    return _read(path, "JSON", lambda text: json.loads(text, object_pairs_hook=_refuse_repetitions))


def _read(path: Path, language: str, parse: Callable[[str], Any]) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: expected a file, got: {error.strerror}") from error
    except ValueError as error:  # the path has a NUL, or the bytes are no UTF-8
        raise ConfigError(f"{str(path)!r}: expected a text file, got: {error}") from error
    try:
        return parse(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected {language}, got: {' '.join(str(error).split())}") from error


def _refuse_repetitions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} twice")
    return content


def build(kind: type[T], values: object, where: str | Path) -> T:
    """Make a dataclass from a mapping of its fields; nested dataclasses are made from nested mappings.

    Args:
        kind: the dataclass; a field with the metadata {"setting": False} is no key of the mapping. What it raises
            itself starts with the name of a field.
        values: {field: value}; an int is taken for a float, a list for a tuple, and nothing else is converted. Where a
            field may be one of several dataclasses, the key "name" tells which: each has a class attribute of this
            name.
        where: what to call the mapping in an error, for instance "classArgs" or the path of its file.

    Raises:
        ConfigError: an unknown or missing key, a value of the wrong type, or a number that is not finite.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {values!r}")
    fields = {
        field.name: field
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.metadata.get("setting", True)
    }
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; expected {', '.join(fields)}")
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in values:
            raise ConfigError(f"{where}: expected the key {name!r}, got {', '.join(map(str, values)) or 'none'}")
    hints = typing.get_type_hints(kind)
    converted = {name: _convert(hints[name], value, _below(where, name)) for name, value in values.items()}
    try:
        return kind(**converted)
    except ConfigError as error:
        raise ConfigError(_below(where, str(error))) from None


def _below(where: str | Path, name: str) -> str:
    return f"{where}: {name}" if isinstance(where, Path) else f"{where}.{name}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against a type hint and convert it as `build` says."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        if named := {kind.name: kind for kind in arguments if dataclasses.is_dataclass(kind) and hasattr(kind, "name")}:
            return _build_named(named, value, where)
        for alternative in arguments:
            if _fits(alternative, value):
                return _convert(alternative, value, where)
    elif origin in (tuple, list, Collection) and isinstance(value, (list, tuple)):
        items = [_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    elif origin is dict and isinstance(value, dict):
        return {_convert(arguments[0], k, where): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    elif _fits(hint, value):
        return _finite(value, where) if hint is float else value
    raise ConfigError(f"{where}: expected {_spelled(hint)}, got {value!r}")


def _build_named(kinds: Mapping[str, Any], value: Any, where: str) -> Any:
    """Build the one of several dataclasses whose name is given by the key "name" of a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {value!r}")
    if not isinstance(name := value.get("name"), str) or name not in kinds:
        raise ConfigError(f"{where}.name: expected one of {', '.join(kinds)}, got {name!r}")
    return build(kinds[name], {key: v for key, v in value.items() if key != "name"}, where)


def _finite(value: float, where: str) -> float:
    try:
        if math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number that no float can hold
        pass
    raise ConfigError(f"{where}: expected a finite number, got {value!r}")


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type, at its outermost level."""
    outer = typing.get_origin(hint) or hint
    if outer is Any:
        return True
    if dataclasses.is_dataclass(outer):
        return isinstance(value, Mapping)
    if outer is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, (list, tuple) if outer in (tuple, Collection) else outer) and (
        outer is bool
    ) == isinstance(value, bool)


def _spelled(hint: Any) -> str:
    """Say a type hint as a user of YAML would."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_spelled(alternative) for alternative in typing.get_args(hint))
    outer = dict if dataclasses.is_dataclass(hint) else typing.get_origin(hint) or hint
    return _NAMES.get(outer, getattr(outer, "__name__", str(outer)))


_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
    Collection: "a list",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
