"""A `NasExperiment` on a task, whose trials NNI's web UI shows by their widths, whatever the strategy."""

from __future__ import annotations

from nni.nas.experiment import NasExperiment
from nni.nas.experiment.config import ModelFormatConfig
from nni.nas.space import ExecutableModelSpace

from nni_s3d.plugin.space import flat


class TaskExperiment(NasExperiment):
    """What `NasExperiment` is, but for how its trials are recorded; see `FlatSpace`.

    S3D records its trials so in a plain `NasExperiment`, too.
    """

    def executable_model_factory(self, config: ModelFormatConfig) -> ExecutableModelSpace:
        """Return the space as NNI executes it."""
        return flat(super().executable_model_factory(config))
