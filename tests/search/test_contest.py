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
