import threading
import time
from types import SimpleNamespace

import pytest
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import ExecutionEngine, SequentialExecutionEngine
from nni.nas.execution.event import TrainingEndEvent
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import ModelStatus, SimplifiedModelSpace

from nni_s3d.errors import ConfigError
from nni_s3d.plugin import strategy as strategy_module
from nni_s3d.plugin.space import TaskSpace
from nni_s3d.plugin.strategy import S3D
from nni_s3d.plugin.trial import evaluate_model
from nni_s3d.search.store import Store
from nni_s3d.testing.contract import SPACE, STEPS, AdapterContract, leave_outcome
from tests import small_task
from tests.plugin.task_space import model_space

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:nni")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Let NNI's loop that waits for a worker look a hundred times as often."""
    monkeypatch.setattr("nni.nas.strategy.base.time", SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 100)))
    monkeypatch.setattr(strategy_module, "_PAUSE", 0.01)


class Engine(ExecutionEngine):
    """Has a number of workers, and keeps what they run until the test says how it ends."""

    def __init__(self, workers, budget=1000):
        super().__init__()
        self.workers, self.budget, self.models = workers, budget, []

    def idle_worker_available(self):
        return len(self.models) < self.workers

    def budget_available(self):
        return self.budget > 0

    def submit_models(self, *models):
        self.budget -= len(models)
        self.models.extend(models)

    def ends(self, spec, status):
        model = next(m for m in self.models if m.sample == spec)
        self.dispatch_model_event(TrainingEndEvent(model, status))
        self.models.remove(model)


class Foreign(ModelSpace):
    """A space that is not a task's."""


class TestContract(AdapterContract):
    @pytest.fixture(autouse=True)
    def end_the_thread(self):
        self.engine = None
        yield
        self.engine.workers, self.engine.budget = 1000, 0
        self.thread.join(10)
        assert not self.thread.is_alive()

    def start(self, tmp_path, concurrency=1, resume=False, **settings):
        if self.engine is not None:  # the old one is interrupted: it hears and does nothing any more
            self.engine.workers, self.engine.budget = 1000, 0
            self.thread.join(10)
        self.store, self.engine = Store(str(tmp_path / "store")), Engine(concurrency)
        self.strategy = S3D(steps=STEPS, **settings)
        self.strategy.initialize(model_space(tmp_path, SPACE), self.engine)
        if resume:
            self.strategy.load_state_dict(S3D().state_dict())
        self.thread = threading.Thread(target=self.strategy.run)
        self.thread.start()

    def finish(self, spec):
        leave_outcome(self.store, spec)
        self.engine.ends(spec, ModelStatus.Trained)

    def fail(self, spec):
        self.engine.ends(spec, ModelStatus.Failed)

    def running(self):
        """Wait until the strategy has nothing to do and return what the workers run."""
        for _ in range(1000):
            time.sleep(0.01)
            tracks = self.strategy._controller.tracks.values() if self.strategy._controller else ()
            wanted = sum(track.status == "running" for track in tracks)
            ready = any(track.status == "ready" for track in tracks) and self.engine.idle_worker_available()
            if tracks and wanted == len(self.engine.models) and not ready:
                return [model.sample for model in self.engine.models]
        raise AssertionError("the strategy does not come to rest")

    def done(self):
        self.running()
        self.thread.join(0.05 if self.engine.models else 10)
        return not self.thread.is_alive()


def test_the_strategy_ends_with_the_budget(tmp_path, caplog):
    engine, strategy = Engine(workers=3, budget=1), S3D(steps=STEPS)
    strategy(model_space(tmp_path, SPACE), engine)
    assert len(engine.models) == 1
    assert "budget is spent" in caplog.text


def test_a_whole_experiment_grows_as_without_nni(tmp_path):
    """NNI's engine without training service runs the models in this process."""
    from nni_s3d.search.experiment import read_experiment, run

    expected = list(run(read_experiment(small_task.write(tmp_path)), Store(str(tmp_path / "other"))))
    engine, settings = SequentialExecutionEngine(), small_task.EXPERIMENT["tuner"]["classArgs"]
    evaluator = FunctionalEvaluator(evaluate_model, store=str(tmp_path / "store"))
    strategy = S3D(**settings)
    space = SimplifiedModelSpace.from_model(TaskSpace(str(tmp_path / "task.yml")), evaluator)
    strategy(space, engine)
    models = list(engine.list_models())
    assert [model.sample for model in models] == [parameters for parameters, _ in expected]
    assert [model.metric for model in models] == [metrics["default"] for _, metrics in expected]  # NNI keeps no other
    best = max(metrics["default"] for _, metrics in expected)
    assert next(strategy.list_models(limit=1)).metric == best


def test_a_failed_model_is_tried_again_in_this_process_too(tmp_path, monkeypatch):
    from nni_s3d.search import planning

    small_task.write(tmp_path)
    original, failures = planning.decide, [RuntimeError("once")]

    def fails_once(*args, **named):
        if failures:
            raise failures.pop()
        return original(*args, **named)

    monkeypatch.setattr(planning, "decide", fails_once)
    engine = SequentialExecutionEngine(continue_on_failure=True)
    evaluator = FunctionalEvaluator(evaluate_model, store=str(tmp_path / "store"))
    space = SimplifiedModelSpace.from_model(TaskSpace(str(tmp_path / "task.yml")), evaluator)
    S3D(steps=1)(space, engine)
    assert [model.sample["step"] for model in engine.list_models()] == [0, 0, 1]


def test_other_spaces_and_evaluators_are_refused(tmp_path):
    other = model_space(tmp_path, SPACE, FunctionalEvaluator(print))
    with pytest.raises(ConfigError, match="expected the evaluator"):
        S3D().initialize(other, Engine(1))
    foreign = SimplifiedModelSpace.from_model(Foreign(), FunctionalEvaluator(evaluate_model))
    with pytest.raises(ConfigError, match="expected a model space of"):
        S3D().initialize(foreign, Engine(1))


@pytest.mark.parametrize(
    ("settings", "message"), [({"copies": 5}, "copies: expected 2, 3 or 4"), ({"nope": 1}, "unknown key 'nope'")]
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        S3D(**settings)


def test_a_strategy_prints_its_settings():
    assert repr(S3D(steps=2, max_params=50)) == "S3D(steps=2, max_params=50)"
