import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.models.widths import named_widths

NAMES, DEFAULT = ["a", "b"], (8, 16)


@pytest.mark.parametrize(
    ("widths", "named"),
    [
        (None, {"a": 8, "b": 16}),
        ([3, 4], {"a": 3, "b": 4}),
        ((3, 4), {"a": 3, "b": 4}),
        ({"b": 4, "a": 3}, {"a": 3, "b": 4}),
    ],
)
def test_widths_are_named_in_the_order_of_the_layers(widths, named):
    assert list(named_widths(widths, NAMES, DEFAULT).items()) == list(named.items())


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((1,), r"^widths: expected 2 of them \(a, b\), got 1"),
        ({"a": 3}, "^widths: 'b' is missing; expected a, b"),
        ({"a": 3, "b": 4, "c": 5}, "^widths: 'c' is unknown; expected a, b"),
        ({"a": 3, "b": 0}, "^widths: expected a whole number >= 1 for 'b', got 0"),
        ({"a": 3.0, "b": 4}, "^widths: expected a whole number >= 1 for 'a', got 3.0"),
        ({"a": True, "b": 4}, "^widths: expected a whole number >= 1 for 'a', got True"),
    ],
)
def test_other_widths_are_refused(widths, message):
    with pytest.raises(ConfigError, match=message):
        named_widths(widths, NAMES, DEFAULT)
