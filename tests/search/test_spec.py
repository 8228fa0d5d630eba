import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.search.spec import Spec, check_name, parse_spec, widths_of
from nni_s3d.tasks.search_space import Space

SPACE = Space.parse({"a": {"_type": "quniform", "_value": [4, 16, 1]}, "b": {"_type": "choice", "_value": [8, 2, 32]}})


@pytest.mark.parametrize("name", ["c1.3-m2-s0", "c1e+06-m24-s1", "A_b", "x" * 200, "-", "a.jsonl"])
def test_names_that_can_be_parts_of_paths(name):
    check_name(name, "name")


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a\\b", "a b", "a\n", "\0", "ä", "x" * 201, "a.json"])
def test_names_that_cannot(name):
    with pytest.raises(ConfigError, match=r"^name: expected 1 to 200 of the characters A-Z"):
        check_name(name, "name")


def test_parameters_are_flat_and_parse_to_the_same_spec():
    spec = Spec({"a": 5, "b": 9}, 2, "c1.3-m2-s0", 30211, 1203456)
    parameters = spec.to_parameters()
    assert list(parameters) == ["a", "b", "step", "lineage", "params", "macs"]
    assert not any(isinstance(value, (dict, list)) for value in parameters.values())
    assert parse_spec(parameters, SPACE) == spec
    assert widths_of(parameters) == spec.widths


def test_plain_widths_are_trained_from_scratch():
    assert parse_spec({"b": 9.0, "a": 5.0}, SPACE) == Spec({"a": 5, "b": 9})
    none = dict.fromkeys(("step", "lineage", "params", "macs"))
    assert parse_spec({"b": 9.0, "a": 5.0, **none}, SPACE) == Spec({"a": 5, "b": 9})


WIDTHS = {"a": 5, "b": 8}


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
        ({"a": 3, "b": 8, "step": 0, "lineage": "l"}, "parameters: a: expected a whole number from 4 to 16, got 3"),
        (WIDTHS | {"parent": "0123"}, "parameters: 'parent' is not in the search space"),
        (WIDTHS | {"step": 1}, "parameters.step: expected 0, or a number > 0 beside a lineage, got 1"),
        (WIDTHS | {"step": -1, "lineage": "l"}, "parameters.step: expected 0, or a number > 0 .*, got -1"),
        (WIDTHS | {"step": 1, "lineage": "../x"}, r"parameters.lineage: expected 1 to 200 of .*, got '\.\./x'"),
        (WIDTHS | {"lineage": "/etc/x"}, "parameters.lineage: expected 1 to 200 .*, got '/etc/x'"),
        (WIDTHS | {"step": "1", "lineage": "l"}, "parameters.step: expected a whole number, got '1'"),
        (5, "parameters: expected a mapping, got 5"),
        ([{"a": 5}], r"parameters: expected a mapping, got \[{'a': 5}\]"),
    ],
)
def test_other_parameters_are_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        parse_spec(parameters, SPACE)


def test_parameters_of_an_older_version_are_named():
    old = {"step": 1, "lineage": "new-s0", "parent": "8c73", "widths": WIDTHS, "params": 1, "macs": 1}
    with pytest.raises(ConfigError, match=r"got them nested under 'widths', as an older version .* a new store"):
        parse_spec(old, SPACE)
