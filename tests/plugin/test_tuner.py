import logging
import shutil
import threading

import pytest

from nni_s3d.errors import ConfigError, S3DError, StoreError
from nni_s3d.plugin import tuner as tuner_module
from nni_s3d.plugin.tuner import S3DArgsValidator, S3DTuner
from nni_s3d.search.lineage import outcome_path, state_path, trial_path
from nni_s3d.search.store import Store
from nni_s3d.testing.contract import SPACE, STEPS, AdapterContract, leave_outcome
from tests.fresh_process import HEAVY, loaded_by

LIMIT = {"maxTrialNumber": 99}


@pytest.fixture(autouse=True)
def manager(monkeypatch):
    """Stand in for the NNI manager: counts how often the experiment was ended, and knows which job has which id."""
    calls = {"ended": 0, "jobs": {}, "failed": set(), "allowed": []}
    monkeypatch.setattr(tuner_module, "end_experiment", lambda: calls.update(ended=calls["ended"] + 1))
    monkeypatch.setattr(tuner_module, "limit_of_trials", lambda: LIMIT)
    monkeypatch.setattr(tuner_module, "allow_trials", calls["allowed"].append)
    monkeypatch.setattr(tuner_module, "trial_of", calls["jobs"].get)
    monkeypatch.setattr(tuner_module, "has_failed", calls["failed"].__contains__)
    monkeypatch.setattr(tuner_module, "_PATIENCE", 0.0)
    return calls


class Nni:
    """Drives a tuner as NNI's manager and dispatcher do."""

    def __init__(self, tuner, concurrency):
        self.tuner, self.trials, self.next_id, self.rerun = tuner, {}, 0, set()
        self.ask(concurrency)

    def ask(self, count):
        ids = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        specs = self.tuner.generate_multiple_parameters(ids, st_callback=self.trials.__setitem__)
        self.trials.update(zip(ids, specs, strict=False))

    def id_of(self, spec):
        return next(number for number, running in self.trials.items() if running == spec)

    def resume(self, tuner, concurrency):
        """Run again what was running, without a word to the new tuner, whose results are handed over as data."""
        self.tuner, self.rerun = tuner, set(self.trials)
        tuner.import_data([])
        self.ask(concurrency)

    def ends(self, spec, success):
        number = self.id_of(spec)
        del self.trials[number]
        if number in self.rerun:
            if success:
                self.tuner.import_data([{"parameter": spec, "value": {"default": 0.5}}])
            else:
                self.ask(1)
            return
        if success:
            self.tuner.receive_trial_result(number, "", {"default": 0.5})
        self.ask(1)  # NNI asks before it says that the trial has ended
        self.tuner.trial_end(number, success)


def make(resume=False, **settings):
    made = S3DTuner(steps=STEPS, **settings)
    if resume:
        made.load_checkpoint()
    made.update_search_space(SPACE)
    return made


class TestContract(AdapterContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path, monkeypatch, manager):
        monkeypatch.setenv("NNI_S3D_STORE", str(tmp_path / "store"))
        self.store, self.manager = Store(str(tmp_path / "store")), manager

    def start(self, tmp_path, concurrency=1, resume=False, **settings):
        tuner = make(resume=resume, **settings)
        if resume:
            self.nni.resume(tuner, concurrency)
        else:
            self.nni = Nni(tuner, concurrency)

    def finish(self, spec):
        leave_outcome(self.store, spec)
        self.nni.ends(spec, True)

    def fail(self, spec):
        self.store.write_json(trial_path(spec["lineage"], spec["step"]), {"trial": "failed"})
        self.manager["failed"].add("failed")
        self.nni.ends(spec, False)

    def running(self):
        return [self.nni.trials[number] for number in sorted(self.nni.trials)]

    def done(self):
        return self.manager["ended"] > 0


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("NNI_S3D_STORE", str(tmp_path / "store"))
    return Store(str(tmp_path / "store"))


def test_saying_it_again_changes_nothing(tmp_path, store):
    tuner = make()
    (spec,) = tuner.generate_multiple_parameters([0])
    leave_outcome(store, spec)
    for _ in range(2):
        tuner.receive_trial_result(0, "", {})
        tuner.trial_end(0, True)
        tuner.trial_end(0, False)
    (following,) = tuner.generate_multiple_parameters([1])
    assert following["step"] == 1


def test_a_resumed_tuner_does_not_start_a_running_step_twice(tmp_path, store):
    (spec,) = make().generate_multiple_parameters([0])
    resumed = make(resume=True)
    assert resumed.generate_multiple_parameters([1]) == []
    leave_outcome(store, spec)
    resumed.import_data([{"parameter": spec, "value": {"default": 0.5}}])
    (following,) = resumed.generate_multiple_parameters([2])
    assert following["step"] == 1


class Dispatcher:
    """Stands in for NNI's dispatcher after a resume: what it runs again, and what it was sent."""

    def __init__(self, *run_again):
        self.recovered_trial_params, self.sent = dict(enumerate(run_again)), {}

    def send(self, parameter_id, spec):
        self.sent[parameter_id] = spec


def test_a_trial_that_nni_has_forgotten_is_started_again(tmp_path, store):
    """A resume that is itself cut off leaves a trial that no later resume runs."""
    lineages = [{"seed": 1}, {"seed": 3}]
    one, other = make(lineages=lineages).generate_multiple_parameters([0, 1])
    dispatcher = Dispatcher(other)
    resumed = make(resume=True, lineages=lineages)
    assert resumed.generate_multiple_parameters([2, 3], st_callback=dispatcher.send) == [one]
    leave_outcome(store, other)
    resumed.import_data([{"parameter": other, "value": {"default": 0.5}}])
    assert [spec["step"] for spec in dispatcher.sent.values()] == [1]
    leave_outcome(store, one)
    resumed.receive_trial_result(2, "", {"default": 0.5})
    resumed.trial_end(2, True)
    assert resumed.generate_multiple_parameters([4])[0]["step"] == 1


def test_a_lineage_that_has_failed_is_tried_again_after_a_resume(tmp_path, store, manager, monkeypatch):
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    failing = make()
    for number in range(2):
        assert len(failing.generate_multiple_parameters([number])) == 1
        failing.trial_end(number, False)
    assert failing.generate_multiple_parameters([2]) == []
    assert (manager["ended"], manager["allowed"]) == (1, [])
    resumed = make(resume=True)
    (spec,) = resumed.generate_multiple_parameters([3], st_callback=Dispatcher().send)
    assert (spec["step"], manager["allowed"]) == (0, [99])


def test_a_store_that_has_vanished_ends_its_lineages(tmp_path, store, caplog):
    tuner = make()
    for number in range(2):
        (spec,) = tuner.generate_multiple_parameters([number])
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        (tmp_path / "store").write_text("")  # a place where nothing can be read or written
        tuner.receive_trial_result(number, "", {"default": 0.5})
        tuner.trial_end(number, True)
    assert tuner.controller.done
    assert spec["step"] == 0
    assert "ends: step 0 failed 2 times: " in caplog.text
    assert "expected a place to read and write, got NotADirectoryError" in caplog.text


def test_a_resumed_tuner_sees_what_has_finished_meanwhile(tmp_path, store):
    (spec,) = make().generate_multiple_parameters([0])
    leave_outcome(store, spec)
    (following,) = make(resume=True).generate_multiple_parameters([1])
    assert following["step"] == 1


def test_old_results_of_a_resumed_experiment_change_nothing(tmp_path, store):
    tuner = make()
    (first,) = tuner.generate_multiple_parameters([0])
    leave_outcome(store, first)
    tuner.receive_trial_result(0, "", {})
    (second,) = tuner.generate_multiple_parameters([1])
    resumed = make(resume=True)
    resumed.import_data([{"parameter": first, "value": {}}])
    assert resumed.generate_multiple_parameters([2]) == []
    leave_outcome(store, second)
    resumed.import_data([{"parameter": second, "value": {}}])
    assert resumed.generate_multiple_parameters([3])[0]["step"] == 2


def test_a_failure_is_charged_to_the_step_that_the_trial_was_running(tmp_path, store, manager, caplog):
    """NNI hands trials that start together each other's parameters, and keeps its record as it was."""
    caplog.set_level(logging.WARNING)
    tuner = make(lineages=[{"seed": 1}, {"seed": 3}])
    one, other = tuner.generate_multiple_parameters([0, 1])
    manager["jobs"].update({0: "job0", 1: "job1"})
    store.write_json(trial_path(one["lineage"], 0), {"trial": "job1"})
    store.write_json(trial_path(other["lineage"], 0), {"trial": "job0"})
    tuner.trial_end(0, False)
    assert f"step 0 of lineage {other['lineage']} failed" in caplog.text
    assert tuner.generate_multiple_parameters([2, 3]) == [other]


def test_the_reason_of_a_failure_is_the_one_that_the_trial_left(tmp_path, store, caplog):
    tuner = make()
    (spec,) = tuner.generate_multiple_parameters([0])
    store.write_json(outcome_path(spec["lineage"], 0), {"error": "RuntimeError: out of memory"})
    tuner.trial_end(0, False)
    assert "failed and is tried again: RuntimeError: out of memory" in caplog.text


def test_results_and_requests_may_come_from_two_threads(tmp_path, store, monkeypatch):
    monkeypatch.setattr(tuner_module, "_PATIENCE", 10.0)
    tuner = make()
    (spec,) = tuner.generate_multiple_parameters([0])
    leave_outcome(store, spec)
    specs = []
    asking = threading.Thread(target=lambda: specs.extend(tuner.generate_multiple_parameters([1])))
    asking.start()
    tuner.receive_trial_result(0, "", {})
    asking.join(10)
    assert [s["step"] for s in specs] == [1]


def test_a_store_with_other_settings_is_refused_and_untouched(tmp_path, store):
    make()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match="got other ones for max_params"):
        make(max_params=50)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {**state, "parameters": {}}, r"state\.json: parameters: 'a' is missing; expected a, b"),
        (
            lambda state: {**state, "parameters": {**state["parameters"], "step": "x"}},
            "parameters.step: expected a whole number",
        ),
        (
            lambda state: {**state, "parameters": {**state["parameters"], "lineage": "x"}},
            "the parameters of lineage 'c1.3-m2-s0', got those of 'x'",
        ),
        (
            lambda state: {**state, "status": "bogus"},
            r"state\.json: track\.status: expected one of ready, running, ended, got",
        ),
        (lambda state: {"status": "ended"}, r"state\.json: track: expected the key 'parameters', got status"),
        (
            lambda state: {"spec": {"widths": {"a": 4, "b": 4}, "step": 0}, "status": "ready"},
            r"state\.json: expected `parameters`, got `spec`, of an older version; start with a new store",
        ),
    ],
)
def test_a_damaged_state_is_refused_and_untouched(tmp_path, store, change, message):
    make(lineages=[{"seed": 1}, {}]).generate_multiple_parameters([0])
    path = state_path("c1.3-m2-s0")
    store.write_json(path, change(store.read_json(path)))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(S3DError, match=message):
        make(resume=True, lineages=[{"seed": 1}, {}])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"copies": 5}, "classArgs.*copies: expected 2, 3 or 4"),
        ({"c": 0.9}, "classArgs.*c: expected a number >= 1"),
        ({"epochs": 0}, "classArgs.*epochs: expected whole numbers >= 1, got 0"),
        ({"phase_budget": "steps"}, "classArgs.*phase_budget: expected one of macs, epochs, got 'steps'"),
        ({"nope": 1}, "classArgs: unknown key 'nope'"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        S3DTuner(**settings)
    with pytest.raises(ConfigError, match=message):
        S3DArgsValidator().validate_class_args(**settings)


def test_a_tuner_starts_without_torch(tmp_path):
    """NNI gives a tuner ten seconds to connect; this is what it does to start one, and the first answer."""
    modules = loaded_by(f"""
import os
os.environ["NNI_S3D_STORE"] = {str(tmp_path / "store")!r}
import nni.__main__
from nni_s3d.plugin.tuner import S3DTuner, S3DArgsValidator
S3DArgsValidator().validate_class_args(steps=2, policy={{"name": "knapsack", "growth": 0.6}})
tuner = S3DTuner(steps=2)
tuner.update_search_space({{"conv0": {{"_type": "quniform", "_value": [3, 9, 1]}}}})
assert tuner.generate_multiple_parameters([0])[0]["conv0"] == 3
""")
    assert not HEAVY & modules
    ours = {name for name in modules if name.startswith("nni_s3d.")}
    assert ours == {
        "nni_s3d.config",
        "nni_s3d.errors",
        "nni_s3d.growth",
        "nni_s3d.growth.eigen",
        "nni_s3d.growth.eigen.solver_names",
        "nni_s3d.growth.graph",
        "nni_s3d.growth.graph.cost_names",
        "nni_s3d.growth.selection",
        "nni_s3d.growth.selection.settings",
        "nni_s3d.growth.settings",
        "nni_s3d.plugin",
        "nni_s3d.plugin.manager",
        "nni_s3d.plugin.plain_json",
        "nni_s3d.plugin.tuner",
        "nni_s3d.search",
        "nni_s3d.search.branches",
        "nni_s3d.search.checksum",
        "nni_s3d.search.contest",
        "nni_s3d.search.controller",
        "nni_s3d.search.folder",
        "nni_s3d.search.front",
        "nni_s3d.search.lineage",
        "nni_s3d.search.read_lineages",
        "nni_s3d.search.retention",
        "nni_s3d.search.spec",
        "nni_s3d.search.store",
        "nni_s3d.search.track",
        "nni_s3d.tasks",
        "nni_s3d.tasks.search_space",
    }


def test_an_experiment_ends_that_learns_of_its_last_failure_after_a_resume(tmp_path, store, manager):
    """NNI does not tell the end of a trial that it runs again."""
    (spec,) = make().generate_multiple_parameters([0])
    resumed = make(resume=True)
    assert resumed.generate_multiple_parameters([1], st_callback=Dispatcher(spec).send) == []
    store.write_json(trial_path(spec["lineage"], 0), {"trial": "job0"})
    store.write_json(outcome_path(spec["lineage"], 0), {"error": "DivergenceError: NaN", "again": False})
    manager["failed"].add("job0")
    assert (resumed.generate_multiple_parameters([2]), manager["ended"]) == ([], 1)


def test_ids_are_handed_out_in_their_order(tmp_path, store):
    """NNI takes the first ids for what it is given."""
    tuner = make(lineages=[{"seed": 1}])
    specs = tuner.generate_multiple_parameters([5, 6, 7], st_callback=Dispatcher().send)
    assert (len(specs), tuner._started, tuner._unused) == (1, {5: specs[0]}, [6, 7])


@pytest.mark.parametrize("content", [b"{", None])
def test_a_limit_that_cannot_be_kept_is_only_a_line_in_the_log(tmp_path, store, manager, monkeypatch, caplog, content):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(folder))
    if content is None:
        (folder / "limit.json").mkdir()  # where no file can be written
    tuner = make()
    for number in range(2):
        tuner.generate_multiple_parameters([number])
        tuner.trial_end(number, False)
    assert manager["ended"] == 1
    if content is not None:
        (folder / "limit.json").write_bytes(content)
    assert len(make(resume=True).generate_multiple_parameters([3], st_callback=Dispatcher().send)) == 1
    assert "nnictl update trialnum lets trials start" in caplog.text
