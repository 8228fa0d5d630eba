from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nni_s3d.config import build, read_json, read_yaml
from nni_s3d.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    size: int = 1

    def __post_init__(self):
        if self.size < 1:
            raise ConfigError(f"size: expected a whole number >= 1, got {self.size}")


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.1
    on: bool = False
    limit: int | None = None
    copies: int | list[int] = 2
    stones: tuple[float, ...] = ()
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None
    folder: str = field(default=".", metadata={"setting": False})


def test_a_mapping_becomes_a_dataclass():
    values = {"name": "a", "rate": 1, "limit": None, "copies": [2, 3], "stones": [0.5, 1], "inner": {"size": 3}}
    built = build(Outer, values, "x")
    assert built == Outer("a", 1.0, False, None, [2, 3], (0.5, 1.0), Inner(3))
    assert isinstance(built.rate, float)
    assert build(Outer, {"name": "a", "other": {"size": 3}}, "x").other == Inner(3)


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
        ({"name": "a", "other": 3}, "x.other: expected a mapping or nothing, got 3"),
        ({"name": "a", "other": {"size": 0}}, "x.other.size: expected a whole number >= 1, got 0"),
        ({"name": "a", "rate": float("inf")}, "x.rate: expected a finite number, got inf"),
        ({"name": "a", "rate": float("nan")}, "x.rate: expected a finite number, got nan"),
        ({"name": "a", "rate": 10**400}, "x.rate: expected a finite number, got 1000"),
        ({"name": "a", "stones": [1, float("inf")]}, r"x.stones\[1\]: expected a finite number, got inf"),
        ({"name": "a", "inner": {"size": 0}}, "x.inner.size: expected a whole number >= 1, got 0"),
        (
            {"name": "a", "folder": "b"},
            "x: unknown key 'folder'; expected name, rate, on, limit, copies, stones, inner, other$",
        ),
        ([], r"x: expected a mapping, got \[\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(Outer, values, "x")


def test_a_key_below_a_file_is_told_from_its_path():
    with pytest.raises(ConfigError, match=r"^a/b\.yml: inner\.size: expected a whole number, got 'x'"):
        build(Outer, {"name": "a", "inner": {"size": "x"}}, Path("a/b.yml"))


def test_keys_of_yaml_and_json_stand_once(tmp_path):
    path = tmp_path / "a"
    path.write_text("base: &b {x: 1}\nother:\n  <<: *b\n  x: 2\n")
    assert read_yaml(path)["other"] == {"x": 2}
    path.write_text('{"a": {"b": [1, 2]}}')
    assert read_json(path) == read_yaml(path) == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1", "expected a mapping, got list"),
        (b"null", "expected a mapping, got NoneType"),
        (b"a: [", "expected YAML"),
        (b"a: !!python/object/apply:os.system ['true']", "expected YAML"),
        (b"[" * 2000, "expected YAML, got: maximum recursion depth"),
        (b"x: 2020-13-45", "expected YAML, got: month must be in 1..12"),
        (b"a: 1\nb: {c: 1, c: 2}", "expected YAML, got: the key 'c' twice .*line 2"),
        (b"a: 1\nb: 2\na: 1", "expected YAML, got: the key 'a' twice"),
        (b"\xff\xfe\x00", "expected a text file, got: 'utf-8' codec"),
        (b"a: \x00", "expected YAML, got: unacceptable character"),
    ],
)
def test_other_files_than_a_mapping_in_yaml_are_refused(tmp_path, content, message):
    (tmp_path / "a.yml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^'?{tmp_path}/a\.yml'?: {message}") as caught:
        read_yaml(tmp_path / "a.yml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON"),
        (b"[" * 100_000, "expected JSON, got: maximum recursion depth"),
        (b'{"a": {"b": 1, "b": 2}}', "expected JSON, got: the key 'b' twice"),
        (b"\xff\xfe\x00", "expected a text file, got: 'utf-8' codec"),
        (b"9" * 5000, "expected JSON, got: Exceeds the limit"),
    ],
)
def test_other_files_than_json_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^'?{tmp_path}/a\.json'?: {message}"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_files_that_are_not_there_are_named(tmp_path, read):
    with pytest.raises(ConfigError, match=r"nowhere: expected a file, got: No such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="expected a file, got: Is a directory"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"'a.*b': expected a text file, got: embedded null byte"):
        read(Path("a\0b"))
