"""Tell NNI about the tuner, so that an experiment file may say `tuner: {name: S3D}`."""

from __future__ import annotations

import nni
from nni.tools.package_utils import AlgoMeta, register_algo_meta


def register() -> None:
    """Enter S3D into the user's list of registered algorithms; doing it again changes nothing."""
    register_algo_meta(
        AlgoMeta.load(
            {
                "algoType": "tuner",
                "builtinName": "S3D",
                "className": "nni_s3d.plugin.tuner.S3DTuner",
                "classArgsValidator": "nni_s3d.plugin.tuner.S3DArgsValidator",
                "nniVersion": nni.__version__,
            }
        )
    )
