from dataclasses import replace
from pathlib import Path

import pytest

from nni_s3d.errors import ConfigError
from paper.bench import Bench, within
from paper.settings import Job, read_study


def test_bisection_finds_the_largest_number_within_a_limit():
    assert within(lambda x: x**2, 0.0, 10.0, 16.0) == pytest.approx(4, abs=1e-5)
    assert within(lambda x: x**2, 0.0, 3.0, 16.0) == pytest.approx(3, abs=1e-5)


def test_a_limit_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match="target: expected at least 9, what the smallest network costs, got 4"):
        within(lambda x: x**2, 3.0, 10.0, 4.0)


def test_a_scale_may_give_a_kind_of_method_a_rate_of_its_own(tmp_path):
    study = read_study(Path(__file__).parents[2] / "paper" / "digits.yml")
    scale = replace(study.scale("tiny"), lr={"widths": 0.25})
    rates = [Bench(study, scale, Job(name, "own", 0), tmp_path).task.training.lr for name in ("S3D", "full size")]
    assert rates == [study.scaled_task(scale).training.lr, 0.25]
