from importlib import import_module

import pytest
from nni.tools.package_utils import config_manager

from nni_s3d.plugin.register import register
from nni_s3d.plugin.tuner import S3DArgsValidator, S3DTuner


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """NNI's list of the algorithms that users have registered, empty."""
    path = tmp_path / "registered_algorithms.yml"
    path.write_text("{}")
    monkeypatch.setattr(config_manager, "get_config_file", lambda name: tmp_path / name)
    return path


def imported(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def test_nni_finds_the_tuner_by_its_name(registered):
    assert config_manager.get_algo_meta("S3D") is None
    register()
    algorithm = config_manager.get_algo_meta("S3D")
    assert algorithm.algo_type == "tuner"
    assert imported(algorithm.class_name) is S3DTuner
    assert imported(algorithm.validator_class_name) is S3DArgsValidator


def test_registering_again_changes_nothing(registered):
    register()
    before = registered.read_text()
    register()
    assert registered.read_text() == before
