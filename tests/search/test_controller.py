import threading

import pytest

from nni_s3d.errors import StoreError
from nni_s3d.search.controller import Controller
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path, state_path, trial_path
from nni_s3d.search.read_lineages import lineages
from nni_s3d.search.store import Store
from nni_s3d.search.track import Track
from nni_s3d.tasks.search_space import Space
from nni_s3d.testing.contract import SPACE, STEPS, leave_outcome

LINEAGES = [Lineage(seed=1, steps=STEPS), Lineage(seed=3, steps=STEPS)]
ONE, OTHER = (lineage.label for lineage in LINEAGES)


def controller(store, lineages=LINEAGES, resume=False):
    return Controller(lineages, Space.parse(SPACE), store, resume)


def test_every_lineage_starts_from_the_seed_network(store):
    started = controller(store)
    first, second = started.next(), started.next()
    assert [first["lineage"], second["lineage"]] == [ONE, OTHER]
    assert {name: first[name] for name in SPACE} == {"a": 4, "b": 4}
    assert first["step"] == second["step"] == 0
    assert started.next() is None
    assert started.running == [first, second]
    assert store.read_json(settings_path(ONE))["seed"] == 1


def test_a_lineage_grows_until_an_outcome_has_no_next(store):
    growing = controller(store, LINEAGES[:1])
    for step in range(STEPS + 1):
        parameters = growing.next()
        assert parameters["step"] == step
        assert growing.next() is None
        assert not growing.done
        leave_outcome(store, parameters)
        growing.finished(parameters)
        growing.finished(parameters)  # saying it again changes nothing
    assert growing.done
    assert growing.tracks[ONE].reason == "done"


def test_outcomes_are_collected_from_the_store(store):
    waiting = controller(store)
    parameters = waiting.next()
    waiting.collect_outcomes()
    assert waiting.running == [parameters]
    leave_outcome(store, parameters)
    waiting.collect_outcomes()
    assert waiting.running == []
    assert waiting.tracks[ONE].step == 1


def test_a_step_is_tried_twice(store, caplog):
    failing = controller(store)
    parameters = failing.next()
    store.write_json(outcome_path(ONE, 0), {"error": "RuntimeError: out of memory"})
    failing.failed(parameters)
    assert failing.next() == parameters
    failing.failed(parameters, "killed")
    assert [track.status for track in failing.tracks.values()] == ["ended", "ready"]
    assert f"step 0 of lineage {ONE} failed and is tried again: RuntimeError: out of memory" in caplog.text
    assert f"lineage {ONE} ends: step 0 failed 2 times: killed" in caplog.text


def test_a_trial_that_left_no_outcome_has_failed(store, caplog):
    silent = controller(store)
    silent.finished(silent.next())
    assert (silent.tracks[ONE].status, silent.tracks[ONE].failures) == ("ready", 1)
    assert "the trial left no outcome" in caplog.text


def test_ends_of_what_does_not_run_change_nothing(store):
    fresh = controller(store)
    tracks = fresh.tracks
    for parameters in ({}, {"lineage": "x", "step": 0}, {"lineage": ONE, "step": 0}):
        fresh.finished(parameters)
        fresh.failed(parameters)
    assert fresh.tracks == tracks


def test_a_fresh_controller_goes_on_from_the_store(store):
    first = controller(store)
    parameters = first.next()
    resumed = controller(store, resume=True)
    assert resumed.running == [parameters]
    assert resumed.tracks == first.tracks
    leave_outcome(store, parameters)
    assert controller(store, resume=True).tracks[ONE].step == 1
    assert controller(store).tracks[ONE] == Track.start(ONE, Space.parse(SPACE))


def test_the_store_says_which_trial_runs_what(store):
    running = controller(store)
    first, second = running.next(), running.next()
    store.write_json(trial_path(OTHER, 0), {"trial": "job7"})
    assert running.trial_of(second) == "job7"
    assert running.trial_of(first) is None
    assert running.run_by("job7") == second
    assert running.run_by("job8") is None


def test_next_waits_for_a_running_trial(store):
    waiting = controller(store, LINEAGES[:1])
    parameters = waiting.next()
    leave_outcome(store, parameters)
    handed_out = []
    thread = threading.Thread(target=lambda: handed_out.append(waiting.next(timeout=60)))
    thread.start()
    waiting.finished(parameters)
    thread.join(60)
    assert handed_out[0]["step"] == 1


def test_other_settings_under_a_name_that_is_taken_are_refused(store):
    controller(store, LINEAGES[:1])
    with pytest.raises(StoreError, match=rf"{ONE}\.json: expected the same settings, got other ones for max_params"):
        controller(store, [Lineage(seed=1, steps=STEPS, max_params=50)])


def test_an_outcome_that_is_no_spec_ends_its_lineage_and_no_other(store, caplog):
    growing = controller(store)
    parameters = growing.next()
    store.write_json(outcome_path(ONE, 0), {"key": "0", "next": {"a": 3, "b": 5}})
    growing.finished(parameters)
    assert "0.json: next: a: expected a whole number from 4 to 64, got 3" in growing.tracks[ONE].reason
    assert growing.next()["lineage"] == OTHER


BRANCHING = {"steps": STEPS, "branches": {"s2d": {"c": 1.0}}}
OWN, BRANCH = "c1.3-m2-s0", "c1.3-m2-s0.1-s2d"


def leave(store, parameters, accuracy, macs):
    """Write what a trial of a lineage with one branch leaves."""
    leave_outcome(store, parameters)
    label, step = parameters["lineage"], parameters["step"]
    outcome = store.read_json(outcome_path(label, step)) | {"default": accuracy, "params": macs, "macs": macs}
    way = "own" if label.endswith("-s2d") else "s2d"
    following = outcome["next"] and outcome["next"] | {"a": outcome["next"]["a"] + 1}
    outcome["branches"] = {way: following} if following else {}
    store.write_json(outcome_path(label, step), outcome)


def play(branching, store, worth):
    """Let trials finish one by one; return (lineage, step) of each."""
    played = []
    while (parameters := branching.next()) is not None:
        played.append((parameters["lineage"], parameters["step"]))
        leave(store, parameters, *worth(*played[-1]))
        branching.finished(parameters)
    return played


def branched(store):
    """Return a controller, and the parameters of the two trials that it has started after the seed network."""
    branching = controller(store, lineages(BRANCHING))
    seed = branching.next()
    leave(store, seed, 0.5, 10)
    branching.finished(seed)
    return branching, branching.next(), branching.next()


def test_a_network_on_the_front_grows_on_in_every_way(store):
    branching = controller(store, lineages(BRANCHING))
    played = play(branching, store, lambda label, step: (step / 10, step))
    # All networks of a step are equal, so none is off the front; the steps come one after another.
    assert [step for _, step in played] == [0] + 2 * [1] + 4 * [2] + 8 * [3]
    assert played[1:3] == [(OWN, 1), (BRANCH, 1)]
    assert {label for label, step in played if step == 2} == {OWN, f"{OWN}.2-s2d", BRANCH, f"{BRANCH}.2-own"}
    assert branching.done


def test_a_branch_begins_with_the_past_of_its_network(store):
    _, own, branch = branched(store)
    assert (own["a"], branch["a"], branch["step"], branch["lineage"]) == (5, 6, 1, BRANCH)
    past = store.read_json(outcome_path(BRANCH, 0))
    assert (past["key"], past["plan"]) == (store.read_json(outcome_path(OWN, 0))["key"], "plan-s2d")
    settings = store.read_json(settings_path(BRANCH))
    assert (settings["c"], settings["name"], settings["steps"]) == (1.0, BRANCH, STEPS)


def test_a_network_off_the_front_ends_its_lineage(store, caplog):
    caplog.set_level("INFO")
    branching = controller(store, lineages(BRANCHING))
    worth = {(OWN, 1): (0.6, 20), (BRANCH, 1): (0.5, 20)}
    played = play(branching, store, lambda label, step: worth.get((label, step), (step / 10, 10 + step)))
    assert not [step for label, step in played if label.startswith(BRANCH) and step > 1]
    assert branching.tracks[BRANCH].reason == f"step 1 of lineage {OWN} is better"
    assert f"lineage {BRANCH} ends: step 1 of lineage {OWN} is better" in caplog.text
    assert branching.done


def test_a_lineage_that_waits_ends_when_a_better_network_comes(store):
    branching, own, branch = branched(store)
    leave(store, own, 0.6, 20)
    branching.finished(own)
    assert branching.tracks[OWN].status == "ready"
    leave(store, branch, 0.7, 19)
    branching.finished(branch)
    assert branching.tracks[OWN].status == branching.tracks[f"{OWN}.2-s2d"].status == "ended"
    assert branching.tracks[BRANCH].status == branching.tracks[f"{BRANCH}.2-own"].status == "ready"


def test_without_other_ways_the_front_alone_ends_lineages(store):
    shared = {"steps": STEPS, "branches": {}, "lineages": [{"seed": 1}, {"seed": 3}]}
    branching = controller(store, lineages(shared))
    played = play(branching, store, lambda label, step: (step + label.endswith("s3") / 2, step))
    # Seed networks all grow.
    assert played == [(ONE, 0), (OTHER, 0), (ONE, 1), (OTHER, 1), (OTHER, 2), (OTHER, 3)]


def test_a_step_without_progress_does_not_end_a_search(store):
    stuck = controller(store, lineages({"steps": STEPS, "branches": {}}))
    assert len(play(stuck, store, lambda label, step: (0.1, 10 + step))) == STEPS + 1


def test_a_new_run_knows_nothing_of_the_branches_of_an_old_one(store):
    _, own, branch = branched(store)
    assert (own["lineage"], branch["lineage"]) == (OWN, BRANCH)
    controller(store, lineages(BRANCHING))
    resumed = controller(store, lineages(BRANCHING), resume=True)
    assert list(resumed.tracks) == [OWN]


def test_a_resumed_controller_ends_what_is_off_the_front(store, monkeypatch):
    branching, own, branch = branched(store)
    leave(store, own, 0.6, 20)
    branching.finished(own)
    leave(store, branch, 0.7, 19)
    monkeypatch.setattr(branching, "_end_those_off_the_front", lambda: None)  # killed before it
    branching.finished(branch)
    assert branching.tracks[OWN].status == "ready"
    assert controller(store, lineages(BRANCHING), resume=True).tracks[OWN].status == "ended"


@pytest.mark.parametrize("stop", range(1, 13))
def test_a_fresh_controller_finds_the_branches(store, stop):
    def worth(label, step):
        return (step / 10 - label.endswith("2-s2d") / 20, step)

    undisturbed = Store(f"{store.url}-undisturbed")
    expected = play(controller(undisturbed, lineages(BRANCHING)), undisturbed, worth)
    assert len(expected) == 1 + 2 + 4 + 6
    first = controller(store, lineages(BRANCHING))
    for _ in range(stop):
        last = first.next()
        leave(store, last, *worth(last["lineage"], last["step"]))
        first.finished(last)
    running = first.next()
    resumed = controller(store, lineages(BRANCHING), resume=True)
    assert resumed.running == [running]
    assert resumed.tracks == first.tracks
    leave(store, running, *worth(running["lineage"], running["step"]))
    resumed.collect_outcomes()
    rest = play(resumed, store, worth)
    assert sorted(rest) == sorted(expected[stop + 1 :])
    assert resumed.done


def test_a_controller_that_is_killed_while_it_branches_begins_there_again(store, monkeypatch):
    branching = controller(store, lineages(BRANCHING))
    seed = branching.next()
    leave(store, seed, 0.5, 10)
    monkeypatch.setattr(type(branching), "_save", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        branching.finished(seed)
    monkeypatch.undo()
    resumed = controller(store, lineages(BRANCHING), resume=True)
    assert {label: track.step for label, track in resumed.tracks.items()} == {OWN: 1, BRANCH: 1}


@pytest.mark.parametrize("stop", range(1, 13))
def test_the_outcomes_tell_where_lineages_and_branches_were(store, stop):
    def worth(label, step):
        return (step / 10 - label.endswith("2-s2d") / 20, step)

    first = controller(store, lineages(BRANCHING))
    for _ in range(stop):
        last = first.next()
        leave(store, last, *worth(last["lineage"], last["step"]))
        first.finished(last)
    for label in first.tracks:
        store.remove(state_path(label))
    resumed = controller(store, lineages(BRANCHING), resume=True)
    ended = {label for label, track in first.tracks.items() if track.status == "ended"}
    assert {label: track.parameters for label, track in resumed.tracks.items() if label not in ended} == {
        label: track.parameters for label, track in first.tracks.items() if label not in ended
    }
    assert ended <= {label for label, track in resumed.tracks.items() if track.status == "ended"}
