"""Grow PyTorch networks by signed neuron splitting (S3D), alone or as a search strategy of NNI."""

from nni_s3d.errors import ConfigError, DataError, ModelError, S3DError, StoreError
from nni_s3d.growth.curvature.splitting_operator import SplittingOperator
from nni_s3d.growth.eigen.solve import spectrum
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.cost import Cost, count
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.graph.register_function import register_function
from nni_s3d.growth.graph.register_layer import register_layer
from nni_s3d.growth.loop import GrowthSettings, GrowthStep, grow
from nni_s3d.growth.selection.new_neurons import NewNeurons, new_neurons
from nni_s3d.growth.selection.plan import GrowthPlan, plan_from_copies
from nni_s3d.growth.selection.policies import Knapsack, TopFraction, TopK, select
from nni_s3d.growth.selection.schemes import Scheme, gain, scheme
from nni_s3d.growth.surgery.split import SplitResult, split, split_average
from nni_s3d.growth.trace import trace
from nni_s3d.tasks.grown import load_grown, save_grown

__version__ = "0.1.0"

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "ConfigError",
    "Cost",
    "DataError",
    "GrowthPlan",
    "GrowthSettings",
    "GrowthStep",
    "Knapsack",
    "ModelError",
    "NewNeurons",
    "S3DError",
    "Scheme",
    "Spectrum",
    "SplitResult",
    "SplittingOperator",
    "StoreError",
    "TopFraction",
    "TopK",
    "count",
    "gain",
    "grow",
    "load_grown",
    "new_neurons",
    "plan_from_copies",
    "register_function",
    "register_layer",
    "save_grown",
    "scheme",
    "select",
    "spectrum",
    "split",
    "split_average",
    "trace",
    "with_equal_parts",
]
