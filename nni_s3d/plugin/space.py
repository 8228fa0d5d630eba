"""A task as a model space of NNI's, for `NasExperiment`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nni.mutable import Categorical, Sample, SampleValidationError, ensure_frozen
from nni.mutable.exception import SampleMissingError
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import ExecutableModelSpace, SimplifiedModelSpace, current_model
from torch import Tensor

from nni_s3d.search.spec import parse_spec
from nni_s3d.tasks.search_space import RESERVED
from nni_s3d.tasks.task import read_task


class TaskSpace(ModelSpace):
    """All networks that a task's search space allows; a module with the network that has been chosen.

    Args:
        task: path of the task.yml, found from the folder in which the experiment is started.

    Raises:
        ConfigError: the task or its search space is not what it should be.
    """

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = read_task(Path(task))
        space = self.task.space()
        widths = [Width(name, values) for name, values in space.values.items()]
        self.parameters = {width.label: ensure_frozen(self.add_mutable(width)) for width in widths}
        sample = current_model() or {}  # of S3D, it says more than widths
        self.parameters |= {name: sample.get(name) for name in RESERVED}
        self.network = self.task.build_model(parse_spec(self.parameters, space).widths, self.task.seed)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the network, whose weights are fresh."""
        outputs: Tensor = self.network(inputs)
        return outputs

    def extra_repr(self) -> str:
        """Name the task."""
        return f"data={self.task.data.name!r}"


class FlatSpace(SimplifiedModelSpace):
    """A space whose trials NNI's web UI shows by their widths, as it shows those of a tuner.

    NNI records a trial of a `NasExperiment` as its whole model, in which the web UI does not find the sample.
    """

    def _dump(self) -> dict[str, Any]:
        return {**(self.sample or {}), **super()._dump()}


def flat(space: ExecutableModelSpace) -> ExecutableModelSpace:
    """Return a space as a flat one, if it is of the kind that a `NasExperiment` makes by default."""
    if type(space) is not SimplifiedModelSpace:
        return space
    return FlatSpace(space.model, space.mutables, space.evaluator)


class Width(Categorical[int]):
    """One width: drawn from the values of the search space, grown to any whole number between them."""

    def __init__(self, name: str, values: Sequence[int]) -> None:
        super().__init__(sorted(values), label=name)  # the first is the default: the width of the seed network
        self.is_range = isinstance(values, range)

    def check_contains(self, sample: Sample) -> SampleValidationError | None:
        """Return what is wrong with a sample, if anything is."""
        if self.label not in sample:
            return SampleMissingError(self.label, list(sample))
        low, high, width = self.values[0], self.values[-1], sample[self.label]
        if not isinstance(width, (int, float)) or not low <= width <= high or width != int(width):
            return SampleValidationError(f"{self.label}: expected a whole number from {low} to {high}, got {width!r}")
        return None

    def as_legacy_dict(self) -> dict[str, Any]:
        """Return the entry of a search-space file; NNI's TPE and its web UI read it."""
        if self.is_range:
            return {"_type": "quniform", "_value": [self.values[0], self.values[-1], 1]}
        legacy: dict[str, Any] = super().as_legacy_dict()
        return legacy
