"""S3D as a strategy, for `NasExperiment`.

    NasExperiment(TaskSpace("task.yml"), FunctionalEvaluator(evaluate_model), S3D(steps=5)).run(port=8080)

with `TaskSpace` of `nni_s3d.plugin.space` and `evaluate_model` of `nni_s3d.plugin.trial`.

NNI 3.0 cannot resume a `NasExperiment` in which a trial has finished: its listener stops at a command that it does not
know. Start a new one with `FunctionalEvaluator(evaluate_model, store=...)` on the store of the old one instead: steps
that were finished there return at once, the one that was cut off goes on from its checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import ExecutionEngine, TrainingServiceExecutionEngine
from nni.nas.execution.event import ModelEventType, TrainingEndEvent
from nni.nas.space import ExecutableModelSpace, ModelStatus
from nni.nas.strategy import Strategy

from nni_s3d.errors import ConfigError
from nni_s3d.plugin.space import TaskSpace, flat
from nni_s3d.plugin.trial import evaluate_model
from nni_s3d.search.controller import Controller
from nni_s3d.search.read_lineages import lineages
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store, store_url
from nni_s3d.tasks.search_space import Space

_logger = logging.getLogger(__name__)
_PAUSE = 1.0  # seconds between looks at the budget, as often as NNI's own strategies look


class S3D(Strategy):
    """Grows one or several lineages; every model that it submits is one growth step.

    Args:
        **settings: the fields of `nni_s3d.search.lineage.Lineage`, and `lineages`, a list of what differs between
            several.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings
        self._lineages = lineages(settings)
        self._resume = False
        self._controller: Controller | None = None
        self._submitted: dict[str, ExecutableModelSpace] = {}  # the engine itself keeps weak references only

    def extra_repr(self) -> str:
        """Return the settings as they were given."""
        return ", ".join(f"{name}={value!r}" for name, value in self._settings.items())

    def _initialize(self, model_space: ExecutableModelSpace, engine: ExecutionEngine) -> ExecutableModelSpace:
        evaluator = model_space.evaluator
        if getattr(getattr(model_space, "model", None), "trace_symbol", None) is not TaskSpace:
            raise ConfigError("S3D: expected a model space of nni_s3d.plugin.space.TaskSpace")
        if not isinstance(evaluator, FunctionalEvaluator) or evaluator.function is not evaluate_model:
            raise ConfigError("S3D: expected the evaluator FunctionalEvaluator(nni_s3d.plugin.trial.evaluate_model)")
        engine.register_model_event_callback(ModelEventType.TrainingEnd, self._on_end)
        return model_space

    def _run(self) -> None:
        mutables = self.model_space.simplify()
        entries = {name: width.as_legacy_dict() for name, width in widths_of(mutables).items()}
        self._controller = Controller(self._lineages, Space.parse(entries), Store(self._store()), self._resume)
        for running in self._controller.running:  # when it was interrupted; no engine runs them again by itself
            self._submit(running)
        while not self._controller.done:
            if not self.wait_for_resource():
                _logger.warning("the experiment's budget is spent before all lineages have ended")
                return
            if (parameters := self._controller.next(timeout=_PAUSE)) is not None:
                self._submit(parameters)

    def _submit(self, parameters: dict[str, Any]) -> None:
        model = self._submitted[parameters["lineage"]] = flat(self.model_space).freeze(parameters)
        self.engine.submit_models(model)

    def _store(self) -> str:
        """Return the URL of the store: what the evaluator says, or a folder of the experiment."""
        chosen: str | None = self.model_space.evaluator.arguments.get("store")
        folder = None
        if isinstance(self.engine, TrainingServiceExecutionEngine):
            experiment = self.engine.nodejs_binding
            folder = Path(experiment.config.canonical_copy().experiment_working_directory, experiment.id)
        return chosen or store_url(folder)

    def _on_end(self, event: TrainingEndEvent) -> None:
        """Take note of the end of a trial: of a success in the store, of a failure by the model."""
        if self._controller is None:
            return
        if event.status == ModelStatus.Trained:
            self._controller.collect_outcomes()
            return
        trial = self._trial_of(event.model) if len(self._controller.running) > 1 else None
        ran = trial and self._controller.run_by(trial)
        self._controller.failed(ran or event.model.sample)

    def _trial_of(self, model: ExecutableModelSpace) -> str | None:
        """Return the id of the last trial that NNI has recorded with a model.

        Trials that start together may each be handed the model of the other, and NNI's record does not follow.
        """
        if not isinstance(self.engine, TrainingServiceExecutionEngine):
            return None
        jobs = [
            job
            for job in self.engine.nodejs_binding.list_trial_jobs()
            if any(_sample(recorded.parameters) == model.sample for recorded in job.hyperParameters)
        ]
        return max(jobs, key=lambda job: job.sequenceId).trialJobId if jobs else None

    def _cleanup(self) -> None:
        self.engine.unregister_model_event_callback(ModelEventType.TrainingEnd, self._on_end)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the state is in the store, where it is written with every decision."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what is in the store."""
        self._resume = True


def _sample(recorded: Any) -> Any:
    return recorded.get("sample") if isinstance(recorded, dict) else None
