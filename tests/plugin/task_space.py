"""The model space of a task that is never trained."""

import json

import yaml
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.space import SimplifiedModelSpace
from torch import nn

from nni_s3d.plugin.space import TaskSpace
from nni_s3d.plugin.trial import evaluate_model
from nni_s3d.tasks.search_space import RESERVED
from tests import small_task


def network(widths):
    return nn.Linear(widths["a"], widths["b"])


SCRATCH = dict.fromkeys(RESERVED)  # what a sample says beside the widths of a network that is trained from scratch


def model_space(folder, space, evaluator=None, **task):
    """Return the space of a task that is never trained, as an experiment makes it."""
    (folder / "space.json").write_text(json.dumps(space))
    content = {**small_task.TASK, "model": {"factory": f"{__name__}:network"}, **task}
    (folder / "task.yml").write_text(yaml.safe_dump(content))
    evaluator = evaluator or FunctionalEvaluator(evaluate_model, store=str(folder / "store"))
    return SimplifiedModelSpace.from_model(TaskSpace(str(folder / "task.yml")), evaluator)
