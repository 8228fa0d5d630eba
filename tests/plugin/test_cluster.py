"""The experiment files for clusters are what NNI and this package expect; no cluster is asked."""

from pathlib import Path

import pytest
import yaml
from nni.experiment.config import ExperimentConfig

from nni_s3d.search.experiment import read_experiment

CONFIGS = Path(__file__).parents[2] / "configs"
PLATFORMS = {"remote", "frameworkcontroller", "kubeflow", "openpai"}


def test_every_platform_has_a_file():
    assert {path.stem for path in (CONFIGS / "cluster").glob("*.yml")} == PLATFORMS


@pytest.mark.parametrize("platform", sorted(PLATFORMS))
def test_the_file_of_a_platform_is_valid(tmp_path, platform):
    path = CONFIGS / "cluster" / f"{platform}.yml"
    content = yaml.safe_load(path.read_text())
    for machine in content["trainingService"].get("machineList", []):
        machine["sshKeyFile"] = str(tmp_path / "key")  # NNI looks whether it is there
        (tmp_path / "key").touch()
    for key in ("searchSpaceFile", "trialCodeDirectory"):
        content[key] = str(path.parent / content[key])
    content["tuner"]["codeDirectory"] = content["trialCodeDirectory"]
    if platform == "openpai":
        content["trainingService"]["localStorageMountPoint"] = str(tmp_path)  # likewise
    if "master" in content["trainingService"]:
        content["trainingService"]["master"]["codeDirectory"] = content["trialCodeDirectory"]
    (tmp_path / "file.yml").write_text(yaml.safe_dump(content))
    config = ExperimentConfig.load(tmp_path / "file.yml")
    config.validate()
    assert config.training_service.platform == platform
    with pytest.raises((ValueError, AttributeError, TypeError)):  # what this test would find
        ExperimentConfig(**{**content, "trainingService": {**content["trainingService"], "nodes": 3}}).validate()


@pytest.mark.parametrize("platform", sorted(PLATFORMS))
def test_it_is_the_task_of_the_digits(platform):
    ours, digits = (read_experiment(CONFIGS / name) for name in (f"cluster/{platform}.yml", "digits/s3d.yml"))
    assert (ours.task.fingerprint, ours.space) == (digits.task.fingerprint, digits.space)
