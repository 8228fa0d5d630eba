from dataclasses import fields

import pytest

from nni_s3d.growth.selection.settings import Knapsack
from nni_s3d.growth.settings import GrowthSettings
from nni_s3d.search.lineage import Lineage


def test_the_default_is_s3d():
    default = Lineage()
    assert (default.method, default.copies, default.c) == ("split", 2, 1.3)
    assert (default.epsilon, default.relative) == (0.5, True)
    assert default.policy == Knapsack(growth=0.6, cost="macs")


def test_a_lineage_has_the_settings_of_growth_and_their_defaults():
    assert {f.name for f in fields(GrowthSettings)} < {f.name for f in fields(Lineage)}
    assert all(getattr(Lineage(), f.name) == getattr(GrowthSettings(), f.name) for f in fields(GrowthSettings))


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "c1.3-m2-s0"),
        ({"seed": 3}, "c1.3-m2-s3"),
        ({"c": 1.0, "copies": 4}, "c1-m4-s0"),
        ({"copies": [1, 2, 3]}, "c1.3-m23-s0"),
        ({"method": "new_neurons"}, "new_neurons-s0"),
        ({"name": "mine"}, "mine"),
    ],
)
def test_a_lineage_is_called_after_its_settings(settings, label):
    assert Lineage(**settings).label == label


def test_a_lineage_without_branches_is_written_as_before_there_were_any():
    assert not {"branches", "front"} & Lineage().to_json().keys()
    assert Lineage(branches={}, front="params").to_json()["front"] == "params"
