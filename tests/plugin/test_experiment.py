import pytest
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.strategy import Random

from nni_s3d.plugin.experiment import TaskExperiment
from nni_s3d.plugin.space import FlatSpace, TaskSpace
from nni_s3d.plugin.trial import evaluate_model
from tests import small_task

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:nni")


def test_all_strategies_record_trials_by_their_widths(tmp_path):
    small_task.write(tmp_path)
    evaluator = FunctionalEvaluator(evaluate_model)
    experiment = TaskExperiment(TaskSpace(str(tmp_path / "task.yml")), evaluator, Random())
    space = experiment.executable_model_factory(experiment.config.canonical_copy().model_format)
    assert type(space) is FlatSpace
    sample = dict.fromkeys(small_task.NAMES, 5)
    assert space.freeze(sample)._dump().items() >= sample.items()
