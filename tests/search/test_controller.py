import threading

import pytest

from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search.controller import Controller, Track
from nni_s3d.search.lineage import Lineage, outcome_path, settings_path, state_path, trial_path
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


WIDTHS = {"a": 4, "b": 4}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"spec": {}}, r"state\.json: expected `parameters`, got `spec`, of an older version; start with a new store"),
        ({"parameters": 3}, r"state\.json: track\.parameters: expected a mapping, got 3"),
        ({"parameters": WIDTHS}, f"expected the parameters of lineage '{ONE}', got those of None"),
        ({"parameters": WIDTHS | {"lineage": "x"}}, f"expected the parameters of lineage '{ONE}', got those of 'x'"),
        ({"parameters": WIDTHS | {"lineage": ONE}, "status": "lost"}, "status: expected one of ready, .*, got 'lost'"),
    ],
)
def test_a_state_that_is_none_of_this_lineage_is_refused(store, state, message):
    store.write_json(state_path(ONE), state)
    with pytest.raises((StoreError, ConfigError), match=message):
        controller(store, resume=True)
    assert store.read_json(state_path(ONE)) == state


def test_an_outcome_that_is_no_spec_is_refused(store):
    growing = controller(store)
    parameters = growing.next()
    store.write_json(outcome_path(ONE, 0), {"key": "0", "next": {"a": 3, "b": 5}})
    with pytest.raises(ConfigError, match=r"0\.json: next: a: expected a whole number from 4 to 64, got 3"):
        growing.finished(parameters)
