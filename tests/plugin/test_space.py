import json

import nni
import pytest
import torch

from nni_s3d.errors import ConfigError
from nni_s3d.plugin.space import FlatSpace, TaskSpace, flat
from nni_s3d.testing.contract import SPACE
from tests.plugin.task_space import SCRATCH, model_space

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:nni")


def test_the_module_of_a_sample_has_its_widths(tmp_path):
    space = model_space(tmp_path, SPACE)
    module = space.freeze({"a": 7, "b": 33, **SCRATCH}).executable_model()
    assert module(torch.zeros(1, 7)).shape == (1, 33)
    assert "digits" in repr(module)


def test_a_flat_space_is_recorded_by_its_widths(tmp_path):
    space = model_space(tmp_path, SPACE)
    sample = {"a": 7, "b": 33, **SCRATCH, "step": 0}
    frozen = flat(space).freeze(sample)
    recorded = json.loads(nni.dump(frozen))
    assert {name: recorded[name] for name in sample} == sample
    loaded = nni.load(nni.dump(frozen))
    assert (type(loaded), loaded.sample, loaded.status) == (FlatSpace, sample, frozen.status)
    assert loaded.executable_model()(torch.zeros(1, 7)).shape == (1, 33)


def test_only_widths_are_drawn(tmp_path):
    space = model_space(tmp_path, SPACE)
    drawn = {name: mutable.default() for name, mutable in space.simplify().items()}
    assert drawn == {"a": 4, "b": 4}
    assert space.freeze(drawn).executable_model().parameters == {"a": 4, "b": 4, **SCRATCH}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"a": 3, "b": 4, **SCRATCH}, "a: expected a whole number from 4 to 64, got 3"),
        ({"a": 4.5, "b": 4, **SCRATCH}, "a: expected a whole number from 4 to 64, got 4.5"),
        ({"b": 4, **SCRATCH}, "Label a is missing"),
    ],
)
def test_samples_outside_the_space_are_refused(tmp_path, sample, message):
    space = model_space(tmp_path, SPACE)
    with pytest.raises(Exception, match=message):
        space.freeze(sample)


def test_a_width_is_an_entry_of_a_search_space_file(tmp_path):
    entries = {"a": SPACE["a"], "b": {"_type": "choice", "_value": [4, 8, 16]}}
    mutables = model_space(tmp_path, entries).simplify()
    assert {name: mutables[name].as_legacy_dict() for name in entries} == entries


def test_a_width_may_grow_to_what_no_strategy_draws(tmp_path):
    space = model_space(tmp_path, {"a": SPACE["a"], "b": {"_type": "choice", "_value": [4, 8, 16]}})
    assert space.freeze({"a": 7, "b": 13, **SCRATCH}).executable_model()(torch.zeros(1, 7)).shape == (1, 13)
    with pytest.raises(Exception, match="b: expected a whole number from 4 to 16, got 17"):
        space.freeze({"a": 7, "b": 17, **SCRATCH})


def test_a_space_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.yml: expected a file, got: No such file"):
        TaskSpace(str(tmp_path / "task.yml"))
