import sys

import pytest
import torch

import nni_s3d as s3d
from nni_s3d.errors import ConfigError
from nni_s3d.tasks.factories import build_network, import_factory, look_in, takes_widths
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import read_task
from tests import factories, small_task
from tests.reference import plan_of_random_copies


def test_every_draw_of_nni_can_be_built(tmp_path):
    from nni.algorithms.hpo.random_tuner import RandomTuner

    small_task.write_residual(tmp_path)
    task, parsed = read_task(tmp_path / "task.yml"), Space.parse(small_task.RESIDUAL_SPACE)
    tuner = RandomTuner(seed=0)
    tuner.update_search_space(small_task.RESIDUAL_SPACE)
    for number in range(5):
        widths = parsed.check(tuner.generate_parameters(number))
        assert s3d.trace(task.build_model(widths, 0), torch.randn(1, 1, 8, 8)).widths == widths


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"factory": "nni_s3d.models"}, "model.factory: expected package.module:function"),
        ({"factory": "nni_s3d.models:nothing"}, "model.factory: expected package.module:function"),
        ({"factory": "no.such:thing"}, "model.factory: expected package.module:function"),
        ({"factory": "nni_s3d.models:mobilenet_v1_small", "colour": 3}, "model: .*'colour'"),
        ({"factory": "nni_s3d.models:mlp", "activation": "Relu"}, "^model.activation: expected the name of a class"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(tmp_path, model, message):
    small_task.write(tmp_path, task={"model": model})
    with pytest.raises(ConfigError, match=message):
        read_task(tmp_path / "task.yml").build_model(dict.fromkeys(small_task.NAMES, 3), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [("def f(:", "SyntaxError: invalid syntax"), ("1 / 0", "ZeroDivisionError: division by zero")],
)
def test_a_module_that_cannot_be_imported_is_refused(tmp_path, monkeypatch, content, message):
    (tmp_path / "broken.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    small_task.write(tmp_path, task={"model": {"factory": "broken:f"}})
    with pytest.raises(ConfigError, match=rf"^model\.factory: expected package\.module:function, .*: {message}"):
        read_task(tmp_path / "task.yml").build_model({}, 0)


def example():
    return torch.randn(1, 1, 8, 8)


@pytest.mark.parametrize("seed", range(3))
def test_widths_say_what_the_attributes_are_that_grow(seed):
    model = build_network("tests.factories:cut", {}, None, example)
    graph = s3d.trace(model, example())
    copies = plan_of_random_copies(graph, (1, 2, 3, 4), seed)
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=2.0))
    again = build_network("tests.factories:cut", {}, result.widths, example)
    assert (again.first, again.widths) == (result.model.first, result.model.widths) != (2, (1, 3))
    again.load_state_dict(result.model.state_dict())
    x = example()
    assert torch.equal(again(x), result.model(x))


def test_a_function_that_takes_widths_is_given_them():
    widths = dict.fromkeys(small_task.NAMES, 5)
    model = build_network("tests.factories:usual", {}, widths, lambda: pytest.fail("traced"))
    assert s3d.trace(model, example()).widths == widths


def test_what_any_other_function_makes_is_widened():
    widths = {"stem": 6, "reduce": 4, "grouped": 8}
    model = build_network("tests.factories:residual", {"classes": 3}, widths, example)
    assert s3d.trace(model, example()).widths == widths
    assert model(example()).shape == (1, 3)


def test_without_widths_the_function_chooses_them():
    model = build_network("tests.factories:residual", {}, None, lambda: pytest.fail("traced"))
    assert model.stem.out_channels == 4


@pytest.mark.parametrize(
    ("function", "takes"),
    [(factories.usual, True), (factories.residual, False), (dict, False), (lambda widths=3: 0, True)],
)
def test_whether_a_function_takes_widths(function, takes):
    assert takes_widths(function) is takes


def test_a_function_is_imported_by_its_name():
    assert import_factory("tests.factories:residual") is factories.residual
    with pytest.raises(ConfigError, match=r"^model\.factory: expected package\.module:function, got 'tests\.f"):
        import_factory("tests.factories")


def test_a_file_beside_the_task_is_found_and_shadows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_the_task.py").write_text("def net():\n    return 3\n")
    (tmp_path / "json.py").write_text("raise SystemExit\n")
    with pytest.raises(ConfigError, match=r"beside_the_task:net"):
        import_factory("beside_the_task:net")
    look_in(tmp_path)
    look_in(tmp_path)
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    assert import_factory("beside_the_task:net")() == 3
    assert import_factory("json:loads")("3") == 3
