import math

import pytest

from nni_s3d.compare.fronts import hypervolume
from nni_s3d.compare.tables import best_first, dominance, per_seed, spread, summary


def test_a_row_for_every_strategy_and_seed(rows):
    seeds = per_seed(rows)
    assert list(zip(seeds["strategy"], seeds["seed"], strict=True)) == [
        ("grow", 0),
        ("grow", 1),
        ("draw", 0),
        ("draw", 1),
    ]
    first = seeds.iloc[0]
    assert (first["trials"], first["params"], first["search_macs"]) == (3, 400, 700_000)
    assert first["test_accuracy"] == pytest.approx(0.75)
    assert first["hypervolume_macs"] == hypervolume(rows[:3], "macs", 4000, 16_000)
    assert first["hypervolume_macs"] == pytest.approx((0.45 + 0.65) / 2)  # two halves of the logarithm


def test_the_best_front_is_first(rows):
    lines = summary(best_first(rows[::-1])).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["grow", "draw"]
    assert "75.5 +- 0.7" in lines[2]
    assert sorted(best_first(rows[::-1]).index) == list(rows.index)


def test_one_size_has_no_front(rows):
    lines = summary(best_first(rows[rows["params"] == 100][::-1])).splitlines()
    assert "hypervolume" not in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["grow", "draw"]


def test_dominance_is_a_share_of_the_columns_front(rows):
    lines = [line.split() for line in dominance(rows).splitlines()]
    assert lines[2:] == [["grow", "-", "100"], ["draw", "0", "-"]]
    alone = rows[(rows["strategy"] == "grow") | (rows["seed"] == 1)]
    assert dominance(alone).splitlines()[2].split() == ["grow", "-", "100"]  # on the seed that both have
    apart = rows[(rows["strategy"] == "grow") == (rows["seed"] == 0)]
    assert dominance(apart).splitlines()[2].split() == ["grow", "-", "-"]


def test_a_spread_needs_two():
    assert spread([1.0], 2) == "1.00"
    assert spread([1.0, 2.0], 2) == f"1.50 +- {math.sqrt(0.5):.2f}"
