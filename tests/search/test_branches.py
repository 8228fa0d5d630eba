import pytest

from nni_s3d.growth.selection.settings import Knapsack, TopK
from nni_s3d.search.branches import Branch, branch_label, descends, parent_of, plan_name, ways_of
from nni_s3d.search.read_lineages import lineages, read_lineage


def test_every_branch_knows_the_way_to_every_other_one():
    (lineage,) = lineages({"seed": 2, "branches": {"s2d": {"c": 1}, "slow": {"policy": {"name": "top_k", "k": 3}}}})
    ways = ways_of(lineage)
    assert {name: (way.c, way.policy, way.seed) for name, way in ways.items()} == {
        "s2d": (1.0, Knapsack(growth=0.6, cost="macs"), 2),
        "slow": (1.3, TopK(3, 0.0), 2),
    }
    from_s2d = ways_of(ways["s2d"])
    assert list(from_s2d) == ["own", "slow"]
    assert (from_s2d["own"].c, from_s2d["own"].policy) == (1.3, lineage.policy)
    assert (from_s2d["slow"].c, from_s2d["slow"].policy) == (1.3, TopK(3, 0.0))


@pytest.mark.parametrize("branches", [None, {}])
def test_a_lineage_may_have_no_other_way(branches):
    (lineage,) = lineages({"branches": branches})
    assert ways_of(lineage) == {}


def test_names():
    assert branch_label("c1.3-m2-s0", 3, "s2d") == "c1.3-m2-s0.3-s2d"
    assert (plan_name(), plan_name("s2d")) == ("plan", "plan-s2d")
    assert parent_of("c1.3-m2-s0.3-s2d.12-y_1") == Branch("c1.3-m2-s0.3-s2d", 12, "y_1")
    assert parent_of("c1.3-m2-s0") is None
    assert descends("a.b.3-x.12-y_1", "a.b")
    assert descends("a.b.3-x.12-y_1", "a.b.3-x")
    for label in ("a.b", "aXb.3-x", "a.b.3-", "a.b.x-3", "a.b.3-x."):
        assert not descends(label, "a.b")


def test_a_way_of_another_method_leaves_what_that_does_not_use():
    (lineage,) = lineages({"smoothing": 5.0, "c": 1, "branches": {"new": {"method": "new_neurons"}}})
    new = ways_of(lineage)["new"]
    assert (new.method, new.smoothing, new.c) == ("new_neurons", 3.0, 1.3)
    own = ways_of(new)["own"]
    assert (own.method, own.smoothing, own.c) == ("split", 5.0, 1.0)


def test_a_complete_lineage_stays_as_it_is():
    (lineage,) = lineages({"smoothing": 5.0, "branches": {"new": {"method": "new_neurons"}, "s2d": {"c": 1}}})
    for way in (lineage, *ways_of(lineage).values()):
        assert read_lineage(way.to_json(), "stored") == way
