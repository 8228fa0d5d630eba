import dataclasses
from pathlib import Path

import pytest

from nni_s3d.errors import ConfigError
from paper.settings import TARGETS, Method, read_study

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "paper" / "digits.yml"


def test_the_studies_can_be_read():
    for path in sorted((ROOT / "paper").glob("*.yml")):
        study = read_study(path)
        assert all(study.scaled_task(scale).training.epochs >= 1 for scale in study.scales.values())
        assert len(study.full) == len(study.scaled_task(next(iter(study.scales.values()))).space().low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "full size"}, "reference: expected a method of kind grow with the target own, got 'full size'"),
        ({"reference": "none"}, "reference: expected a method of kind grow"),
    ],
)
def test_a_study_without_a_reference_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(read_study(DIGITS), **change)


def test_a_method_says_what_it_does_not_know():
    with pytest.raises(ConfigError, match=r"kind: expected one of grow, scratch, .*, got 'guess'"):
        Method("guess")
    with pytest.raises(ConfigError, match="targets: expected some of own, params, macs, cost, got 'latency'"):
        Method("grow", ["latency"])
    with pytest.raises(ConfigError, match="share_of: expected params or macs, got 'latency'"):
        Method("prune", share_of="latency")


def test_the_reference_is_always_among_the_jobs():
    jobs = read_study(DIGITS).jobs(["S2D"], TARGETS, [3])
    assert [(job.method, job.target, job.seed) for job in jobs] == [("S3D", "own", 3), ("S2D", "own", 3)]


def test_some_targets_only():
    jobs = read_study(DIGITS).jobs(["L1 pruning"], ["cost"], [0])
    assert [(job.method, job.target) for job in jobs] == [("S3D", "own"), ("L1 pruning", "cost")]


def test_what_grows_has_no_target_of_cost():
    with pytest.raises(ConfigError, match="targets: expected macs instead of cost for what grows"):
        Method("grow", ["cost"])
