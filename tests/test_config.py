from dataclasses import dataclass, field

import pytest

from nni_s3d.config import build, read_yaml
from nni_s3d.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.1
    on: bool = False
    limit: int | None = None
    copies: int | list[int] = 2
    stones: tuple[float, ...] = ()
    inner: Inner = field(default_factory=Inner)


def test_a_mapping_becomes_a_dataclass():
    values = {"name": "a", "rate": 1, "limit": None, "copies": [2, 3], "stones": [0.5, 1], "inner": {"size": 3}}
    built = build(Outer, values, "x")
    assert built == Outer("a", 1.0, False, None, [2, 3], (0.5, 1.0), Inner(3))
    assert isinstance(built.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "x: expected the key 'name', got none"),
        ({"name": "a", "rte": 1}, "x: unknown key 'rte'; expected name, rate"),
        ({"name": 3}, "x.name: expected a text, got 3"),
        ({"name": "a", "rate": "1"}, "x.rate: expected a number, got '1'"),
        ({"name": "a", "rate": True}, "x.rate: expected a number, got True"),
        ({"name": "a", "on": 1}, "x.on: expected true or false, got 1"),
        ({"name": "a", "limit": 1.5}, "x.limit: expected a whole number or nothing, got 1.5"),
        ({"name": "a", "limit": True}, "x.limit: expected a whole number or nothing, got True"),
        ({"name": "a", "copies": "2"}, "x.copies: expected a whole number or a list, got '2'"),
        ({"name": "a", "stones": [1, "b"]}, r"x.stones\[1\]: expected a number, got 'b'"),
        ({"name": "a", "inner": {"sizes": 3}}, "x.inner: unknown key 'sizes'; expected size"),
        ({"name": "a", "inner": 3}, "x.inner: expected a mapping, got 3"),
        ([], r"x: expected a mapping, got \[\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(Outer, values, "x")


def test_yaml_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "a.yml"
    with pytest.raises(ConfigError, match=r"a\.yml: expected a file, got: No such file"):
        read_yaml(path)
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping, got list"):
        read_yaml(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="expected YAML"):
        read_yaml(path)
    path.write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="expected YAML"):
        read_yaml(path)
