from .errors import ConfigError, DataError, ModelError, S3DError, StoreError
from .growth.curvature.plain_operator import PlainSplittingOperator
from .growth.curvature.splitting_operator import SplittingOperator
from .growth.eigen.solve import spectrum
from .growth.eigen.spectrum import Spectrum
from .growth.graph.channels import ChannelGraph, ChannelGroup
from .growth.graph.cost import Cost, count
from .growth.graph.equal_parts import with_equal_parts
from .growth.graph.register_function import register_function
from .growth.graph.register_layer import register_layer
from .growth.loop import GrowthStep, grow
from .growth.pruning.importance import importance
from .growth.pruning.select_keep import select_keep
from .growth.selection.new_neurons import NewNeurons, new_neurons
from .growth.selection.plan import GrowthPlan
from .growth.selection.plan_from_copies import plan_from_copies
from .growth.selection.random_splits import RandomSplits, random_splits
from .growth.selection.schemes import Scheme, gain, scheme
from .growth.selection.select import select
from .growth.selection.settings import Knapsack, TopFraction, TopK
from .growth.settings import GrowthSettings
from .growth.surgery.merge import merge
from .growth.surgery.remove import remove
from .growth.surgery.shrink_and_perturb import shrink_and_perturb
from .growth.surgery.split import SplitResult, split, split_average
from .growth.trace import trace
from .tasks.grown import load_grown, save_grown

__version__: str
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
    "PlainSplittingOperator",
    "RandomSplits",
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
    "importance",
    "load_grown",
    "merge",
    "new_neurons",
    "plan_from_copies",
    "random_splits",
    "register_function",
    "register_layer",
    "remove",
    "save_grown",
    "scheme",
    "select",
    "select_keep",
    "shrink_and_perturb",
    "spectrum",
    "split",
    "split_average",
    "trace",
    "with_equal_parts",
]
