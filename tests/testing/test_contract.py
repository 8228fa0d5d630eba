"""The contract, held against the plainest adapter that there is, and against adapters that break it."""

import pytest

from nni_s3d.search.controller import Controller
from nni_s3d.search.read_lineages import lineages
from nni_s3d.search.store import Store
from nni_s3d.tasks.search_space import Space
from nni_s3d.testing.contract import SPACE, STEPS, AdapterContract, leave_outcome


class Plain(AdapterContract):
    """A controller that is asked for as many trials as may run, in this process."""

    def start(self, tmp_path, concurrency=1, resume=False, **settings):
        self.store = Store(str(tmp_path / "store"))
        self.controller = Controller(lineages({"steps": STEPS, **settings}), Space.parse(SPACE), self.store, resume)
        self.concurrency, self.trials = concurrency, list(self.controller.running)
        self.fill()

    def fill(self):
        while len(self.trials) < self.concurrency and (parameters := self.controller.next()) is not None:
            self.trials.append(parameters)

    def finish(self, parameters):
        leave_outcome(self.store, parameters)
        self.ends(parameters, self.controller.finished)

    def fail(self, parameters):
        self.ends(parameters, self.controller.failed)

    def ends(self, parameters, note):
        self.trials.remove(parameters)
        note(parameters)
        self.fill()

    def running(self):
        return list(self.trials)

    def done(self):
        return self.controller.done and not self.trials


class TestPlain(Plain):
    pass


class TakesFailuresForSuccesses(Plain):
    def fail(self, parameters):
        self.finish(parameters)


class ForgetsToResume(Plain):
    def start(self, tmp_path, concurrency=1, resume=False, **settings):
        super().start(tmp_path, concurrency, False, **settings)


class RunsOneAtATime(Plain):
    def start(self, tmp_path, concurrency=1, resume=False, **settings):
        super().start(tmp_path, 1, resume, **settings)


@pytest.mark.parametrize(
    ("adapter", "test"),
    [
        (TakesFailuresForSuccesses, "test_a_failed_trial_is_tried_again_once"),
        (ForgetsToResume, "test_a_fresh_object_goes_on_where_the_last_one_was"),
        (RunsOneAtATime, "test_two_lineages_run_side_by_side"),
    ],
)
def test_adapters_that_break_the_contract_are_found(adapter, test, tmp_path):
    with pytest.raises((AssertionError, ValueError)):
        getattr(adapter(), test)(tmp_path)


@pytest.mark.parametrize("method", ["start", "finish", "fail", "running", "done"])
def test_a_driver_must_be_written(method):
    arguments = () if method in ("running", "done") else (None,)
    with pytest.raises(NotImplementedError):
        getattr(AdapterContract(), method)(*arguments)
