from dataclasses import replace
from pathlib import Path

import pytest

from nni_s3d import count
from nni_s3d.errors import ConfigError
from paper.bench import Bench, within
from paper.settings import Job, read_study
from paper.widths import fitted, multiplied


def test_bisection_finds_the_largest_number_within_a_limit():
    assert within(lambda x: x**2, 0.0, 10.0, 16.0) == pytest.approx(4, abs=1e-5)
    assert within(lambda x: x**2, 0.0, 3.0, 16.0) == pytest.approx(3, abs=1e-5)


def test_a_limit_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match="target: expected at least 9, what the smallest network costs, got 4"):
        within(lambda x: x**2, 3.0, 10.0, 4.0)


def test_widths_are_fitted_without_building_anything_larger(tmp_path, monkeypatch):
    """Against the costs of networks that are built."""
    study = read_study(Path(__file__).parents[2] / "paper" / "digits.yml")
    bench = Bench(study, study.scale("tiny"), Job("width multiplier", "macs", 0), tmp_path)
    smallest = dict.fromkeys(bench.full, 3)
    for widths, kind in ((bench.full, "macs"), (smallest, "macs"), (bench.full, "params"), (smallest, "params")):
        budget = getattr(count(bench.graph(bench.build(multiplied(bench.full, 1.5)))), kind)
        monkeypatch.setattr(Bench, "budget", (kind, budget))
        found = fitted(bench, widths)
        costs = [getattr(count(bench.graph(bench.build(some))), kind) for some in (found, multiplied(found, 1.1))]
        assert costs[0] <= budget < costs[1]


def test_a_full_network_of_other_layers_is_refused(tmp_path):
    study = read_study(Path(__file__).parents[2] / "paper" / "digits.yml")
    bench = Bench(replace(study, full=[8, 8]), study.scale("tiny"), Job("full size", "own", 0), tmp_path)
    with pytest.raises(ConfigError, match=r"full: expected 6 widths, those of conv0, .*, got 2"):
        _ = bench.full


def test_a_scale_may_give_a_kind_of_method_a_rate_of_its_own(tmp_path):
    study = read_study(Path(__file__).parents[2] / "paper" / "digits.yml")
    scale = replace(study.scale("tiny"), lr={"widths": 0.25})
    rates = [Bench(study, scale, Job(name, "own", 0), tmp_path).task.training.lr for name in ("S3D", "full size")]
    assert rates == [study.scaled_task(scale).training.lr, 0.25]
