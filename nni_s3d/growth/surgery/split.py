"""The model: split its neurons in a copy of it, which is never touched itself.

Every copy of a neuron sits where the neuron sat, so a dimension grows by repeating its slots in place, and reshapes
between layers (flatten, concatenation) stay valid. Values: rows and followers are copied, rows move by
epsilon * delta_j, and a consumer's columns are multiplied by w_j. Where a layer is both, the column rule applies to its
displacement too, so that neighbouring splits compose. Three layers of files do it: tensors (`axis_growth`,
`displacements`), modules (`install`) and the model (`carry_out`, and here).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.averages import check_averages
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.equal_parts import check_equal_parts
from nni_s3d.growth.modules import call, evaluation_mode, tensors
from nni_s3d.growth.selection.plan import GrowthPlan, second_copies
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.carry_out import carry_out, example_inputs
from nni_s3d.growth.surgery.displacements import StepLength, moves
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.new_neurons import draw_new_neurons
from nni_s3d.growth.surgery.optimizer_state import grown_state


@dataclass(frozen=True)
class SplitResult:
    """A network of other widths, grown or pruned, and how it came from its parent."""

    model: nn.Module
    graph: ChannelGraph  # of the new model
    widths: dict[str, int]  # of every splittable group
    index_map: dict[str, Tensor]  # (new width,): the parent's neuron that each neuron is, or is a copy of
    optimizer_state: dict[str, Any] | None  # for an optimizer made for the new model as the old one was for the old


@torch.no_grad()
def split(
    model: nn.Module,
    graph: ChannelGraph,
    plan: GrowthPlan,
    epsilon: float = 0.01,
    optimizer: torch.optim.Optimizer | None = None,
) -> SplitResult:
    """Return a grown copy of the model; with epsilon = 0, or new neurons, it computes the same function.

    A neuron theta_i becomes copies theta_i + epsilon * delta_j with output weights w_j, eq. (6) of the paper. The loss
    changes by epsilon^2 / 2 * plan.gain, up to higher orders of epsilon.

    Args:
        model: the network that was traced, or another one of the same layers and widths, such as a moving average of
            its weights; it is left as it is.
        graph: its channel graph.
        plan: from `select` or `plan_from_copies`.
        epsilon: length of the displacements.
        optimizer: if given, its state is carried over. Its buffers are running means of gradients or of their
            squares, so a copy receives what it would have gathered had it been there all along: the chain rule
            multiplies the gradient of a copy's own parameters by w_j, and leaves that of its consumers' columns. A
            new neuron begins with zeros. Buffers that are parameters themselves, such as averages, grow like these.

    Raises:
        ConfigError: epsilon is negative or not a number.
        ModelError: the model or the plan does not belong to this graph, the plan leaves parts unequal that must be
            equal, an optimizer keeps state that nobody knows how to grow, or new neurons enter a function that is not
            defined for them.

    Examples:
        >>> import nni_s3d as s3d
        >>> model, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.randn(4, 2)
        >>> graph = s3d.trace(model, x)
        >>> plan = s3d.plan_from_copies(graph, {"0": torch.tensor([1, 2, 1])})
        >>> result = s3d.split(model, graph, plan, epsilon=0)
        >>> result.widths, result.index_map["0"].tolist(), result.model[0]
        ({'0': 4}, [0, 1, 1, 2], Linear(in_features=2, out_features=4, bias=True))
        >>> bool(torch.allclose(result.model(x), model(x), atol=1e-6))
        True
    """
    step = StepLength(epsilon, plan.relative)
    graph.check(model)
    new = _new_channels(graph, plan)
    check_equal_parts(graph, new.copies)
    check_averages(graph.averages, new.copies, new.weights)

    def moved(growth: AxisGrowth) -> Mapping[str, Tensor]:
        return moves(dict(model.named_parameters()), graph, growth, plan, step)

    done = carry_out(model, graph, new, moved)
    if plan.seed is not None:
        second = {name: second_copies(copies) for name, copies in plan.copies.items() if copies.max() > 1}
        draw_new_neurons(done.model, done.graph, second, plan.seed)
        _check_outputs(model, done.model, graph)
    index_map = {name: torch.arange(copies.numel()).repeat_interleave(copies) for name, copies in plan.copies.items()}
    state = None if optimizer is None else grown_state(model, optimizer, done.growth, moved(done.growth))
    return SplitResult(done.model, done.graph, plan.widths, index_map, state)


def split_average(
    average: AveragedModel, graph: ChannelGraph, plan: GrowthPlan, epsilon: float = 0.01
) -> AveragedModel:
    """Split a moving average of the weights as `split` does the model; arguments and errors as there.

    Returns:
        A new average of the same kind, over as many models as the old one.

    Examples:
        >>> import nni_s3d as s3d
        >>> model, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.randn(4, 2)
        >>> graph, average = s3d.trace(model, x), AveragedModel(model)
        >>> plan = s3d.plan_from_copies(graph, {"0": torch.tensor([1, 2, 1])})
        >>> s3d.split_average(average, graph, plan).module[0]
        Linear(in_features=2, out_features=4, bias=True)
    """
    grown = copy.copy(average)
    module = split(average.module, graph, plan, epsilon).model
    grown._modules, grown._buffers = {"module": module}, {"n_averaged": average.n_averaged.clone()}
    return grown


def _new_channels(graph: ChannelGraph, plan: GrowthPlan) -> NewChannels:
    """Return the channels that a plan makes, after a look whether it is a plan for this graph."""
    expected, widths = graph.widths, {name: copies.numel() for name, copies in plan.copies.items()}
    if widths != expected:
        raise ModelError(f"plan: expected one for the widths {expected}, got one for {widths}; select again")
    copies = graph.per_channel(plan.copies)
    weights = torch.ones(int(copies.sum()), dtype=torch.float64)
    first = copies.cumsum(0) - copies
    for name, of_copies in plan.weights.items():
        start = int(first[graph[name].first])
        weights[start : start + len(of_copies)] = of_copies.to(weights)
    return NewChannels(copies, weights, torch.ones_like(weights) if plan.seed is None else (weights != 0).double())


def _check_outputs(model: nn.Module, grown: nn.Module, graph: ChannelGraph) -> None:
    """Refuse new neurons in functions such as log: where these are not defined, a weight of 0 does not help."""
    if not _finite(grown, graph) and _finite(model, graph):
        expected = "expected functions that are defined everywhere, got outputs that are not finite any more"
        raise ModelError(f"new neurons: {expected}; method split stays near the old neurons")


def _finite(model: nn.Module, graph: ChannelGraph) -> bool:
    with evaluation_mode(model):
        outputs = tensors(call(model, example_inputs(model, graph)))
    return all(bool(x.isfinite().all()) for x in outputs)
