"""The contract of every adapter of the controller to a search framework, however the framework drives it.

A test class inherits `AdapterContract` and says how its adapter is driven; pytest then runs the tests of the contract.
Trials are faked by writing the outcome that a real one would leave. The tuner and the strategy of this package are held
to it, and so may be an adapter of your own:

    class TestMine(AdapterContract):
        def start(self, tmp_path: Path, concurrency: int = 1, resume: bool = False, **settings: Any) -> None: ...
        def finish(self, parameters: dict[str, Any]) -> None: ...
        def fail(self, parameters: dict[str, Any]) -> None: ...
        def running(self) -> list[dict[str, Any]]: ...
        def done(self) -> bool: ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store

SPACE = {name: {"_type": "quniform", "_value": [4, 64, 1]} for name in ("a", "b")}
STEPS = 3


def leave_outcome(store: Store, parameters: dict[str, Any]) -> None:
    """Write what a finished trial writes: every width grows by one per step, and the last step has no next."""
    grown = {name: width + 1 for name, width in widths_of(parameters).items()}
    following = {
        **grown,
        "step": parameters["step"] + 1,
        "lineage": parameters["lineage"],
        "params": 10 + parameters["step"],
        "macs": 100,
    }
    last = parameters["step"] == STEPS
    outcome = {
        "key": f"{parameters['lineage']}-{parameters['step']}",
        "next": None if last else following,
        "stop": "done" * last,
    }
    store.write_json(outcome_path(parameters["lineage"], parameters["step"]), outcome)


class AdapterContract:
    """Inherit, and implement the driver: `start`, `finish`, `fail`, `running` and `done`."""

    def start(self, tmp_path: Path, concurrency: int = 1, resume: bool = False, **settings: Any) -> None:
        """Create the adapter with a store in tmp_path and let NNI ask for as many trials as may run."""
        raise NotImplementedError

    def finish(self, parameters: dict[str, Any]) -> None:
        """Let a running trial finish: its outcome is left and NNI says so."""
        raise NotImplementedError

    def fail(self, parameters: dict[str, Any]) -> None:
        """Let a running trial fail."""
        raise NotImplementedError

    def running(self) -> list[dict[str, Any]]:
        """Return the running of the trials that run, in the order in which they were started."""
        raise NotImplementedError

    def done(self) -> bool:
        """Whether the adapter has declared the experiment complete."""
        raise NotImplementedError

    def test_the_steps_of_a_lineage_come_one_by_one(self, tmp_path: Path) -> None:
        self.start(tmp_path)
        for step in range(STEPS + 1):
            (parameters,) = self.running()
            assert parameters["step"] == step
            assert widths_of(parameters) == {"a": 4 + step, "b": 4 + step}
            assert not self.done()
            self.finish(parameters)
        assert self.running() == []
        assert self.done()

    def test_two_lineages_run_side_by_side(self, tmp_path: Path) -> None:
        self.start(tmp_path, concurrency=2, lineages=[{"seed": 1}, {"seed": 3}])
        for step in range(STEPS + 1):
            running = self.running()
            assert sorted(s["lineage"] for s in running) == ["c1.3-m2-s1", "c1.3-m2-s3"]
            assert {s["step"] for s in running} == {step}
            for parameters in reversed(running):
                self.finish(parameters)
        assert self.done()

    def test_one_lineage_leaves_a_second_place_empty(self, tmp_path: Path) -> None:
        self.start(tmp_path, concurrency=2)
        for _ in range(STEPS + 1):
            (parameters,) = self.running()
            self.finish(parameters)
        assert self.done()

    def test_a_failed_trial_is_tried_again_once(self, tmp_path: Path) -> None:
        self.start(tmp_path)
        (first,) = self.running()
        self.fail(first)
        (second,) = self.running()
        assert second == first
        self.finish(second)
        assert [s["step"] for s in self.running()] == [1]

    def test_a_fresh_object_goes_on_where_the_last_one_was(self, tmp_path: Path) -> None:
        self.start(tmp_path)
        (seed,) = self.running()
        self.finish(seed)
        (interrupted,) = self.running()
        self.start(tmp_path, resume=True)
        assert self.running() == [interrupted]
        self.finish(interrupted)
        assert [s["step"] for s in self.running()] == [2]
        assert not self.done()

    def test_a_step_that_runs_again_may_fail_too(self, tmp_path: Path) -> None:
        self.start(tmp_path)
        (interrupted,) = self.running()
        self.start(tmp_path, resume=True)
        assert self.running() == [interrupted]
        self.fail(interrupted)
        assert self.running() == [interrupted]
        self.finish(interrupted)
        assert [s["step"] for s in self.running()] == [1]

    def test_every_step_may_fail_once(self, tmp_path: Path) -> None:
        self.start(tmp_path)
        for step in range(STEPS + 1):
            for end in (self.fail, self.finish):
                (parameters,) = self.running()
                assert parameters["step"] == step
                end(parameters)
        assert self.done()

    def test_a_trial_that_fails_twice_ends_its_lineage_and_no_other(self, tmp_path: Path, caplog: Any) -> None:
        self.start(tmp_path, concurrency=2, lineages=[{"seed": 1}, {"seed": 3}])
        for _ in range(2):
            self.fail(next(s for s in self.running() if s["lineage"] == "c1.3-m2-s1"))
        assert "lineage c1.3-m2-s1 ends: step 0 failed 2 times" in caplog.text
        for step in range(STEPS + 1):
            (parameters,) = self.running()
            assert (parameters["lineage"], parameters["step"]) == ("c1.3-m2-s3", step)
            self.finish(parameters)
        assert self.done()
