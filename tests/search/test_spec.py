import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.search.spec import Spec, check_name, parse_spec
from nni_s3d.tasks.search_space import Space

SPACE = Space.parse({"a": {"_type": "quniform", "_value": [4, 16, 1]}, "b": {"_type": "choice", "_value": [8, 2, 32]}})


def test_low_is_the_seed_and_high_the_cap():
    assert SPACE.low == {"a": 4, "b": 2}
    assert SPACE.high == {"a": 16, "b": 32}
    assert Space.parse({"a": {"_type": "randint", "_value": [4, 17]}}).high == {"a": 16}


def test_wide_spaces_take_no_time():
    wide = Space.parse({"a": {"_type": "quniform", "_value": [3, 10**6, 1]}})
    assert (wide.low, wide.high) == ({"a": 3}, {"a": 10**6})
    assert isinstance(wide.values["a"], range)


@pytest.mark.parametrize("name", ["c1.3-m2-s0", "c1e+06-m24-s1", "A_b", "x" * 64, "-", "a.jsonl"])
def test_names_that_can_be_parts_of_paths(name):
    check_name(name, "name")


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a\\b", "a b", "a\n", "\0", "ä", "x" * 65, "a.json"])
def test_names_that_cannot(name):
    with pytest.raises(ConfigError, match=r"^name: expected 1 to 64 of the characters A-Z"):
        check_name(name, "name")


def test_a_spec_survives_json():
    spec = Spec({"a": 5, "b": 9}, 2, "c1.3-m2-s0", "0123", 30211, 1203456)
    assert list(spec.to_json()) == ["step", "lineage", "parent", "widths", "params", "macs"]
    assert parse_spec(spec.to_json(), SPACE) == spec


def test_plain_widths_are_trained_from_scratch():
    assert parse_spec({"b": 9.0, "a": 5.0}, SPACE) == Spec({"a": 5, "b": 9})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"a": 5}, "parameters: 'b' is missing; expected a, b"),
        ({"a": 5, "b": 8, "z": 1}, "parameters: 'z' is not in the search space"),
        ({"a": 17, "b": 8}, "parameters: a: expected a whole number from 4 to 16, got 17"),
        ({"a": 5.5, "b": 8}, "parameters: a: expected a whole number from 4 to 16, got 5.5"),
        ({"a": True, "b": 8}, "parameters: a: expected a whole number"),
        ({"a": "5", "b": 8}, "parameters: a: expected a whole number"),
        ({"a": float("inf"), "b": 8}, "parameters: a: expected a whole number"),
        ({"a": float("nan"), "b": 8}, "parameters: a: expected a whole number"),
        ({"widths": {"a": 3, "b": 8}}, "parameters: widths: a: expected a whole number from 4 to 16, got 3"),
        ({"widths": {"a": 5, "b": 8}, "stp": 1}, "parameters: unknown key 'stp'"),
        (
            {"widths": {"a": 5, "b": 8}, "step": 1},
            "parameters.parent: expected one exactly for steps above 0, got None at 1",
        ),
        (
            {"widths": {"a": 5, "b": 8}, "parent": "p", "lineage": "l"},
            "parameters.parent: expected one exactly for steps",
        ),
        (
            {"widths": {"a": 5, "b": 8}, "step": 1, "parent": "zzz"},
            "parameters.lineage: expected one beside the parent 'zzz', got none",
        ),
        (
            {"widths": {"a": 5, "b": 8}, "step": 1, "parent": "../x", "lineage": "l"},
            r"parameters.parent: expected 1 to 64 of the characters .*, got '\.\./x'",
        ),
        ({"widths": {"a": 5, "b": 8}, "lineage": "/etc/x"}, "parameters.lineage: expected 1 to 64 .*, got '/etc/x'"),
        (5, "parameters: expected a mapping, got 5"),
        ([{"a": 5}], r"parameters: expected a mapping, got \[{'a': 5}\]"),
        ({"widths": {"a": 5, "b": 8}, "step": "1"}, "parameters.step: expected a whole number, got '1'"),
    ],
)
def test_other_parameters_are_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        parse_spec(parameters, SPACE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a mapping such as .*, got {}"),
        ({"a": {"_type": "quniform", "_value": [3, 10**12, 1]}}, "a: expected whole numbers from 1 to 1000000, got"),
        ({"a": {"_type": "quniform", "_value": [1e9, 1e9, 1]}}, "a: expected whole numbers from 1 to 1000000, got"),
        ({"a": {"_type": "choice", "_value": [10**30]}}, "a: expected whole numbers from 1 to 1000000, got"),
        ({"a": 3}, "a: expected quniform"),
        ({"a": {"_type": "uniform", "_value": [1, 2]}}, "a: expected quniform"),
        ({"a": {"_type": "quniform", "_value": [1, 9, 2]}}, "a: expected multiples of 2, got"),
        ({"a": {"_type": "choice", "_value": []}}, "a: expected quniform"),
        ({"a": {"_type": "quniform", "_value": [0, 9, 1]}}, "a: expected whole numbers from 1 to 1000000"),
        ({"a": {"_type": "choice", "_value": ["x"]}}, "a: expected whole numbers from 1 to 1000000"),
        ({"a": {"_type": "quniform", "_value": [9, 3, 1]}}, "a: expected low <= high"),
    ],
)
def test_other_search_spaces_are_refused(content, message):
    with pytest.raises(ConfigError, match=message):
        Space.parse(content)


def test_a_file_that_is_no_search_space_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"x\.json: expected a file"):
        Space.read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match=r"x\.json: expected JSON"):
        Space.read(tmp_path / "x.json")
