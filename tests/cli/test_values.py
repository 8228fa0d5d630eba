import pytest

from nni_s3d.cli.values import at_least_one, count, setting, sizes
from nni_s3d.errors import ConfigError


def test_sizes_are_whole_numbers_from_one():
    assert sizes("1,3,224,224") == (1, 3, 224, 224)
    for wrong in ("", "1,x", "0,3", "1,-2", "1.5"):
        with pytest.raises(ValueError):  # noqa: PT011  (argparse makes a message of it)
            sizes(wrong)


@pytest.mark.parametrize(("text", "number"), [("300", 300), ("1.2M", 1.2e6), ("12G", 12e9), ("50k", 5e4), ("1e6", 1e6)])
def test_counts_may_have_a_unit(text, number):
    assert count(text) == number


@pytest.mark.parametrize("text", ["", "k", "0", "-3M", "inf", "nan", "1.2X"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        count(text)


def test_some_are_at_least_one():
    assert at_least_one("3") == 3
    for wrong in ("0", "-1", "1.5", ""):
        with pytest.raises(ValueError):  # noqa: PT011
            at_least_one(wrong)


def test_settings_are_those_of_yaml():
    assert setting("widths=[1, 2]") == ("widths", [1, 2])
    with pytest.raises(ConfigError, match="--set: expected KEY=VALUE, got 'classes'"):
        setting("classes")
