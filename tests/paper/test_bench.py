import pytest

from nni_s3d.errors import ConfigError
from paper.bench import within


def test_bisection_finds_the_largest_number_within_a_limit():
    assert within(lambda x: x**2, 0.0, 10.0, 16.0) == pytest.approx(4, abs=1e-5)
    assert within(lambda x: x**2, 0.0, 3.0, 16.0) == pytest.approx(3, abs=1e-5)


def test_a_limit_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match="target: expected at least 9, what the smallest network costs, got 4"):
        within(lambda x: x**2, 3.0, 10.0, 4.0)
