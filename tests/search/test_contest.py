import pytest

from nni_s3d.search.contest import Contest
from nni_s3d.search.read_lineages import lineages

(OWN,) = lineages({"branches": {"s2d": {"c": 1}}})
(PLAIN,) = lineages({"seed": 3})


def outcome(key, accuracy, macs):
    return {"key": key, "default": accuracy, "params": macs, "macs": macs}


def test_a_lineage_goes_on_from_the_front_alone():
    contest = Contest()
    contest.enter(OWN.label, 0, outcome("a", 0.5, 10))
    contest.enter("other", 0, outcome("b", 0.9, 10))
    assert contest.better(OWN) is None  # seed networks all grow
    contest.enter(OWN.label, 1, outcome("c", 0.6, 20))
    assert contest.better(OWN) == "step 0 of lineage other"
    contest.enter(OWN.label, 2, outcome("d", 0.95, 30))
    assert contest.better(OWN) is None


def test_a_branch_has_the_past_of_its_parent_and_then_its_own():
    contest, branch = Contest(), "c1.3-m2-s0.2-s2d"
    for step, accuracy in enumerate((0.5, 0.7)):
        contest.enter(OWN.label, step, outcome(str(step), accuracy, 10 + step))
    contest.branch_off(OWN.label, branch)
    contest.enter(branch, 2, outcome("x", 0.6, 20))  # worse than its own past, which does not count
    (settings,) = lineages({"name": branch, "branches": {"s2d": {"c": 1}}})
    assert contest.better(settings) is None
    contest.enter(OWN.label, 2, outcome("y", 0.8, 15))
    assert contest.better(settings) == f"step 2 of lineage {OWN.label}"


def test_lineages_without_branches_take_no_part():
    contest = Contest()
    for step in range(2):
        contest.enter(PLAIN.label, step, outcome(str(step), 0.1, 100))
    contest.enter("other", 0, outcome("b", 0.9, 10))
    assert contest.better(PLAIN) is None


def lineages_that(**settings):
    (lineage,) = lineages({"name": "x", **settings})
    return {"x": lineage, "y": lineage}


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"keep": "all"}, set()),
        ({"keep": "newest"}, {"x0", "x1", "y0"}),
        ({"keep": "front"}, {"x1"}),  # y0 is better
        ({"keep": "front", "front": "params"}, {"x1"}),
    ],
)
def test_what_no_lineage_keeps_leaves_once(settings, left):
    contest = Contest()
    for label, step, accuracy, macs in [("x", 0, 0.5, 10), ("x", 1, 0.4, 20), ("x", 2, 0.3, 30), ("y", 0, 0.6, 20)]:
        contest.enter(label, step, outcome(f"{label}{step}", accuracy, macs))
    contest.enter("y", 1, outcome("y1", 0.9, 40))
    assert contest.leave(lineages_that(**settings)) == left
    assert contest.leave(lineages_that(**settings)) == set()


def test_a_network_that_a_branch_grows_from_stays():
    contest = Contest()
    contest.enter("x", 0, outcome("x0", 0.5, 10))
    contest.branch_off("x", "y")
    contest.enter("x", 1, outcome("x1", 0.6, 20))
    assert contest.leave(lineages_that(keep="newest")) == set()
    contest.enter("y", 1, outcome("y1", 0.6, 20))
    assert contest.leave(lineages_that(keep="newest")) == {"x0"}
