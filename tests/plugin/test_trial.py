import gc
from importlib.util import find_spec
from types import SimpleNamespace

import nni
import pytest
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import Random

from nni_s3d.plugin.space import TaskSpace
from nni_s3d.plugin.trial import evaluate_model, main
from nni_s3d.search.store import Store
from nni_s3d.search.trial import run
from nni_s3d.tasks.task import read_task
from tests import small_task
from tests.processes import side_by_side

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:nni")


def test_the_strategies_of_nni_draw_plain_widths_for_the_same_trial(tmp_path):
    small_task.write(tmp_path)
    evaluator = FunctionalEvaluator(evaluate_model, store=str(tmp_path / "store"))
    space = SimplifiedModelSpace.from_model(TaskSpace(str(tmp_path / "task.yml")), evaluator)
    engine = SequentialExecutionEngine(max_model_count=2)
    Random(seed=0)(space, engine)
    for model in engine.list_models():
        assert model.sample.keys() == set(small_task.NAMES)
        assert 0 <= model.metric <= 1


@pytest.fixture
def manager(monkeypatch):
    """Stand in for NNI: hands out widths and takes results."""
    calls = SimpleNamespace(parameters=dict.fromkeys(small_task.NAMES, 4), intermediate=[], final=[])
    monkeypatch.setattr(nni, "get_next_parameter", lambda: calls.parameters)
    monkeypatch.setattr(nni, "report_intermediate_result", calls.intermediate.append)
    monkeypatch.setattr(nni, "report_final_result", calls.final.append)
    return calls


def test_the_command_runs_what_nni_hands_out(tmp_path, monkeypatch, manager):
    monkeypatch.setenv("NNI_S3D_STORE", str(tmp_path / "store"))
    small_task.write(tmp_path)
    assert main([str(tmp_path / "task.yml")]) == 0
    (metrics,) = manager.final
    expected = run(manager.parameters, read_task(tmp_path / "task.yml"), Store(str(tmp_path / "other")))
    assert metrics == expected
    assert len(manager.intermediate) == 2
    assert gc.isenabled()


def test_of_several_processes_the_first_alone_speaks_to_nni(tmp_path, monkeypatch, manager):
    monkeypatch.setenv("NNI_S3D_STORE", str(tmp_path / "store"))
    small_task.write(tmp_path)

    def process():
        assert main([str(tmp_path / "task.yml")]) == 0
        return len(manager.intermediate), len(manager.final)

    assert side_by_side(process, join=False) == [(2, 1), (0, 0)]


def test_the_store_is_a_folder_of_the_experiment(tmp_path, monkeypatch, manager):
    monkeypatch.delenv("NNI_S3D_STORE", raising=False)
    monkeypatch.setenv("NNI_EXP_ID", "abcd1234")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "abcd1234" / "environments" / "local-env" / "trials" / "x"))
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "x")
    small_task.write(tmp_path)
    assert main([str(tmp_path / "task.yml")]) == 0
    assert (tmp_path / "abcd1234" / "store" / "task.json").exists()
    events = tmp_path / "abcd1234" / "trials" / "x" / "output" / "tensorboard"  # where NNI's button looks
    assert bool(find_spec("tensorboard")) == bool(list(events.glob("events.out.tfevents.*")))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (None, "error: parameters: 'conv0' is missing; expected conv0, pw1, pw2, pw3, pw4, pw5\n"),
        ({"step": 1, "lineage": "x"} | dict.fromkeys(small_task.NAMES, 4), "the settings of lineage 'x', got none\n"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, manager, parameters, message):
    monkeypatch.setenv("NNI_S3D_STORE", str(tmp_path / "store"))
    small_task.write(tmp_path)
    manager.parameters = parameters
    assert main([str(tmp_path / "task.yml")]) == 2
    error = capsys.readouterr().err
    assert error.endswith(message)
    assert error.count("\n") == 1
    assert manager.final == []
