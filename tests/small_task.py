"""A task that takes a second: few digits, a small network, two epochs."""

import json
from pathlib import Path

import yaml

TASK = {
    "data": {"name": "digits", "validation": 0.25, "samples": 200, "pad": 1},
    "model": {"factory": "nni_s3d.models:mobilenet_v1_small", "image_size": 8},
    "search_space": "space.json",
    "training": {"epochs": 2, "batch_size": 50, "lr": 0.1},
    "curvature": {"samples": 60, "batch_size": 40},
    "device": "cpu",
}
TINY = {  # what takes as little as can be
    "data": {"name": "digits", "validation": 0.25, "samples": 60},
    "training": {"epochs": 1, "batch_size": 45, "lr": 0.01},
    "curvature": {"samples": 20, "batch_size": 20},
}
NAMES = ("conv0", "pw1", "pw2", "pw3", "pw4", "pw5")
SPACE = {name: {"_type": "quniform", "_value": [3, 12, 1]} for name in NAMES}
# A network that knows nothing of widths, and the search space that `nni-s3d inspect` makes of it.
RESIDUAL = {"factory": "tests.factories:residual", "classes": 10}
RESIDUAL_SPACE = {
    "stem": {"_type": "quniform", "_value": [4, 32, 1]},
    "reduce": {"_type": "quniform", "_value": [4, 32, 2]},
    "grouped": {"_type": "quniform", "_value": [4, 32, 2]},
}
EXPERIMENT = {
    "searchSpaceFile": "space.json",
    "trialCodeDirectory": ".",
    "trialCommand": "python -m nni_s3d.plugin.trial task.yml",
    "trialConcurrency": 1,
    "trainingService": {"platform": "local"},
    "tuner": {
        "className": "nni_s3d.plugin.tuner.S3DTuner",
        "codeDirectory": ".",
        "classArgs": {
            "steps": 2,
            "method": "split",
            "copies": 2,
            "c": 1.3,
            "policy": {"name": "top_fraction", "fraction": 0.3},
        },
    },
}


def write(folder: Path, task: dict | None = None, **class_args: object) -> Path:
    """Write task, search space and experiment files and return the path of the experiment file."""
    experiment = {**EXPERIMENT, "tuner": {**EXPERIMENT["tuner"]}}
    experiment["tuner"]["classArgs"] = {**EXPERIMENT["tuner"]["classArgs"], **class_args}
    (folder / "task.yml").write_text(yaml.safe_dump({**TASK, **(task or {})}))
    (folder / "space.json").write_text(json.dumps(SPACE))
    (folder / "s3d.yml").write_text(yaml.safe_dump(experiment))
    return folder / "s3d.yml"


def write_residual(folder: Path, space: dict | None = None, **class_args: object) -> Path:
    """Write the files of an experiment with a network that knows nothing of widths."""
    path = write(folder, {"model": RESIDUAL}, **class_args)
    (folder / "space.json").write_text(json.dumps(space or RESIDUAL_SPACE))
    return path


def write_long(folder: Path, **class_args: object) -> Path:
    """Write the files of an experiment of many cheap steps: each adds one neuron, so that they cost much the same."""
    growth = {"policy": {"name": "top_k", "k": 1}, "c": 3.0, "phase_budget": "epochs", "epochs": 1, "keep": "newest"}
    path = write(folder, TINY, **{**growth, **class_args})
    space = {name: {"_type": "quniform", "_value": [3, 300, 1]} for name in NAMES}
    (folder / "space.json").write_text(json.dumps(space))
    return path
