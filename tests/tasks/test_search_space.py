import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.tasks.search_space import RESERVED, Space

SPACE = Space.parse({"a": {"_type": "quniform", "_value": [4, 16, 1]}, "b": {"_type": "choice", "_value": [8, 2, 32]}})


def test_low_is_the_seed_and_high_the_cap():
    assert SPACE.low == {"a": 4, "b": 2}
    assert SPACE.high == {"a": 16, "b": 32}
    assert Space.parse({"a": {"_type": "randint", "_value": [4, 17]}}).high == {"a": 16}


def test_wide_spaces_take_no_time():
    wide = Space.parse({"a": {"_type": "quniform", "_value": [3, 10**6, 1]}})
    assert (wide.low, wide.high) == ({"a": 3}, {"a": 10**6})
    assert isinstance(wide.values["a"], range)


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


@pytest.mark.parametrize("name", RESERVED)
def test_a_width_may_not_be_called_like_what_stands_beside_it(name):
    entry = {"_type": "quniform", "_value": [3, 9, 1]}
    with pytest.raises(ConfigError, match=rf"expected other names than step, lineage, .*, got a width called '{name}'"):
        Space.parse({"a": entry, name: entry})
