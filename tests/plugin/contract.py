"""What every adapter of the controller to NNI must do, whichever way NNI drives it.

A subclass says how its adapter is driven; trials are faked by writing the outcome that a real one would leave.
"""

from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store

SPACE = {name: {"_type": "quniform", "_value": [4, 64, 1]} for name in ("a", "b")}
STEPS = 3


def leave_outcome(store: Store, spec: dict) -> None:
    """Write what a finished trial writes: every width grows by one per step, and the last step has no next."""
    grown = {name: width + 1 for name, width in widths_of(spec).items()}
    following = {
        **grown,
        "step": spec["step"] + 1,
        "lineage": spec["lineage"],
        "params": 10 + spec["step"],
        "macs": 100,
    }
    last = spec["step"] == STEPS
    outcome = {"key": f"{spec['lineage']}-{spec['step']}", "next": None if last else following, "stop": "done" * last}
    store.write_json(outcome_path(spec["lineage"], spec["step"]), outcome)


class Contract:
    """Inherit, and implement the driver: `start`, `finish`, `fail` and `done`."""

    def start(self, tmp_path, concurrency=1, resume=False, **settings):
        """Create the adapter with a store in tmp_path and let NNI ask for as many trials as may run."""
        raise NotImplementedError

    def finish(self, spec):
        """Let a running trial finish: its outcome is left and NNI says so."""
        raise NotImplementedError

    def fail(self, spec):
        """Let a running trial fail."""
        raise NotImplementedError

    def running(self):
        """Return the specs of the trials that run, in the order in which they were started."""
        raise NotImplementedError

    def done(self):
        """Whether the adapter has declared the experiment complete."""
        raise NotImplementedError

    def test_the_steps_of_a_lineage_come_one_by_one(self, tmp_path):
        self.start(tmp_path)
        for step in range(STEPS + 1):
            (spec,) = self.running()
            assert spec["step"] == step
            assert widths_of(spec) == {"a": 4 + step, "b": 4 + step}
            assert not self.done()
            self.finish(spec)
        assert self.running() == []
        assert self.done()

    def test_two_lineages_run_side_by_side(self, tmp_path):
        self.start(tmp_path, concurrency=2, lineages=[{"seed": 1}, {"seed": 3}])
        for step in range(STEPS + 1):
            specs = self.running()
            assert sorted(s["lineage"] for s in specs) == ["c1.3-m2-s1", "c1.3-m2-s3"]
            assert {s["step"] for s in specs} == {step}
            for spec in reversed(specs):
                self.finish(spec)
        assert self.done()

    def test_one_lineage_leaves_a_second_place_empty(self, tmp_path):
        self.start(tmp_path, concurrency=2)
        for _ in range(STEPS + 1):
            (spec,) = self.running()
            self.finish(spec)
        assert self.done()

    def test_a_failed_trial_is_tried_again_once(self, tmp_path):
        self.start(tmp_path)
        (first,) = self.running()
        self.fail(first)
        (second,) = self.running()
        assert second == first
        self.finish(second)
        assert [s["step"] for s in self.running()] == [1]

    def test_a_fresh_object_goes_on_where_the_last_one_was(self, tmp_path):
        self.start(tmp_path)
        (seed,) = self.running()
        self.finish(seed)
        (interrupted,) = self.running()
        self.start(tmp_path, resume=True)
        assert self.running() == [interrupted]
        self.finish(interrupted)
        assert [s["step"] for s in self.running()] == [2]
        assert not self.done()

    def test_a_step_that_runs_again_may_fail_too(self, tmp_path):
        self.start(tmp_path)
        (interrupted,) = self.running()
        self.start(tmp_path, resume=True)
        assert self.running() == [interrupted]
        self.fail(interrupted)
        assert self.running() == [interrupted]
        self.finish(interrupted)
        assert [s["step"] for s in self.running()] == [1]

    def test_every_step_may_fail_once(self, tmp_path):
        self.start(tmp_path)
        for step in range(STEPS + 1):
            for end in (self.fail, self.finish):
                (spec,) = self.running()
                assert spec["step"] == step
                end(spec)
        assert self.done()

    def test_a_trial_that_fails_twice_ends_its_lineage_and_no_other(self, tmp_path, caplog):
        self.start(tmp_path, concurrency=2, lineages=[{"seed": 1}, {"seed": 3}])
        for _ in range(2):
            self.fail(next(s for s in self.running() if s["lineage"] == "c1.3-m2-s1"))
        assert "lineage c1.3-m2-s1 ends: step 0 failed 2 times" in caplog.text
        for step in range(STEPS + 1):
            (spec,) = self.running()
            assert (spec["lineage"], spec["step"]) == ("c1.3-m2-s3", step)
            self.finish(spec)
        assert self.done()
