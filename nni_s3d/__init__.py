"""Grow PyTorch networks by signed neuron splitting (S3D), alone or as a search strategy of NNI."""

from nni_s3d.errors import ConfigError, DataError, ModelError, S3DError, StoreError
from nni_s3d.grown import load_grown, save_grown
from nni_s3d.growth.balance import balanced
from nni_s3d.growth.channels import ChannelGraph, ChannelGroup, trace
from nni_s3d.growth.cost import Cost, count
from nni_s3d.growth.curvature import SplittingOperator
from nni_s3d.growth.eigen import spectrum
from nni_s3d.growth.loop import Growth, GrowthStep, grow
from nni_s3d.growth.newcomers import Newcomers, newcomers
from nni_s3d.growth.plan import GrowthPlan, plan_from_copies
from nni_s3d.growth.schemes import Scheme, gain, scheme
from nni_s3d.growth.selection import Knapsack, TopFraction, TopK, select
from nni_s3d.growth.spectra import Spectrum
from nni_s3d.growth.surgery import SplitResult, split, split_average

__version__ = "0.1.0"

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "ConfigError",
    "Cost",
    "DataError",
    "Growth",
    "GrowthPlan",
    "GrowthStep",
    "Knapsack",
    "ModelError",
    "Newcomers",
    "S3DError",
    "Scheme",
    "Spectrum",
    "SplitResult",
    "SplittingOperator",
    "StoreError",
    "TopFraction",
    "TopK",
    "balanced",
    "count",
    "gain",
    "grow",
    "load_grown",
    "newcomers",
    "plan_from_copies",
    "save_grown",
    "scheme",
    "select",
    "spectrum",
    "split",
    "split_average",
    "trace",
]
