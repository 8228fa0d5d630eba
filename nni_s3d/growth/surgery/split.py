"""Split neurons: dimensions, then modules, then the model, which is copied and never touched.

Every copy of a neuron sits where the neuron sat, so a dimension grows by repeating its slots in place, and reshapes
between layers (flatten, concatenation) stay valid. Values: rows and followers are copied, rows move by
epsilon * delta_j, and a consumer's columns are multiplied by w_j. Where a layer is both, the column rule applies to its
displacement too, so that neighbouring splits compose. In the end the grown network is traced: what its layers read is
seen, not assumed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree

from nni_s3d.errors import ConfigError, ModelError, first_line
from nni_s3d.growth.graph import equal_parts as balance
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup, Layer, Role
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.graph.theta import pack, scatter
from nni_s3d.growth.modules import call, copied, evaluation_mode, tensors
from nni_s3d.growth.selection.plan import GrowthPlan, second_copies
from nni_s3d.growth.surgery.axis_growth import AxisGrowth, in_place
from nni_s3d.growth.surgery.new_neurons import place
from nni_s3d.growth.surgery.optimizer_state import grown_state


@dataclass(frozen=True)
class SplitResult:
    """A grown network, and how it came from its parent."""

    model: nn.Module
    graph: ChannelGraph  # of the grown model
    widths: dict[str, int]  # of every splittable group
    index_map: dict[str, Tensor]  # (new width,): the parent's neuron that each neuron is a copy of
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

    Args:
        model: the network that was traced, or another one of the same layers and widths, such as a moving average of
            its weights; it is left as it is.
        graph: its channel graph.
        plan: from `select` or `plan_from_copies`.
        epsilon: length of the displacements, for a relative plan in units of each neuron's |theta_i|.
        optimizer: if given, its state is carried over. Its buffers are running means of gradients or of their
            squares, so a copy receives what it would have gathered had it been there all along: the chain rule
            multiplies the gradient of a copy's own parameters by w_j, and leaves that of its consumers' columns. A
            new neuron begins with zeros.

    Raises:
        ConfigError: epsilon is negative or not a number.
        ModelError: the model or the plan does not belong to this graph, the plan leaves parts unequal that must be
            equal, an optimizer keeps buffers of an unknown kind, or new neurons enter a function that is not defined
            for them.
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon < float("inf"):
        raise ConfigError(f"epsilon: expected a number >= 0, got {epsilon!r}")
    graph.check(model)
    copies = _copies(graph, plan)
    balance.check(graph, copies)
    weights = _output_weights(graph, plan, copies)
    inherits = torch.ones_like(weights) if plan.seed is None else weights != 0
    growth = AxisGrowth(graph, copies, weights, inherits, [in_place(axis.slots, copies) for axis in graph.axes()])
    grown = _grown(model, graph, growth, plan, epsilon)
    found = _traced_again(grown, graph, plan)
    slots = [axis.slots for axis in found.axes()]
    if not all(map(torch.equal, slots, growth.slots)):  # a shuffle lies between a neuron and its readers
        growth = AxisGrowth(graph, copies, weights, inherits, slots)
        grown = _grown(model, graph, growth, plan, epsilon)
    if plan.seed is not None:
        place(grown, found, {name: second_copies(n) for name, n in plan.copies.items() if n.max() > 1}, plan.seed)
        _check_outputs(model, grown, graph)
    index_map = {name: torch.arange(number.numel()).repeat_interleave(number) for name, number in plan.copies.items()}
    state = None if optimizer is None else grown_state(model, optimizer, growth)
    return SplitResult(grown, found, plan.widths, index_map, state)


def split_average(
    average: AveragedModel, graph: ChannelGraph, plan: GrowthPlan, epsilon: float = 0.01
) -> AveragedModel:
    """Split a moving average of the weights as `split` does the model; arguments and errors as there."""
    module = split(average.module, graph, plan, epsilon).model
    grown = copy.copy(average)
    grown._modules, grown._buffers = {"module": module}, {"n_averaged": average.n_averaged.clone()}
    return grown


def _copies(graph: ChannelGraph, plan: GrowthPlan) -> Tensor:
    """Return the plan's copies (channels,), after a look whether it is a plan for this graph."""
    expected = graph.widths
    found = {name: number.numel() for name, number in plan.copies.items()}
    if found != expected:
        raise ModelError(f"plan: expected one for the widths {expected}, got one for {found}")
    return graph.per_channel(plan.copies)


def _output_weights(graph: ChannelGraph, plan: GrowthPlan, copies: Tensor) -> Tensor:
    """Return w_j of every new channel."""
    widths = [int(copies[group.channels].sum()) for group in graph]
    parts = [
        plan.weights[group.name].double().cpu() if group.name in plan.weights else torch.ones(width).double()
        for group, width in zip(graph, widths, strict=True)
    ]
    return torch.cat(parts) if parts else torch.ones(0).double()


def _grown(model: nn.Module, graph: ChannelGraph, growth: AxisGrowth, plan: GrowthPlan, epsilon: float) -> nn.Module:
    """Return a copy of the model in which every tensor has grown."""
    moves = _moves(model, graph, growth, plan, epsilon)
    old = dict((*model.named_parameters(), *model.named_buffers()))
    # What does not grow is copied as it is, tied to another parameter perhaps.
    values = {name: growth.value(name, tensor, moves) for name, tensor in old.items() if growth.grows(name)}
    grown = copied(model, {id(old[name]): old[name] for name in values})  # without copying what is replaced
    for name, value in values.items():
        replace_tensor(grown, name, value, requires_grad=old[name].requires_grad)
    for layer in graph.layers:
        _set_attributes(grown, layer)
    return grown


def _moves(
    model: nn.Module, graph: ChannelGraph, growth: AxisGrowth, plan: GrowthPlan, epsilon: float
) -> dict[str, Tensor]:
    """Return epsilon * delta for every producer parameter, with its new rows and its old columns."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    layers = _with_slots(graph.layers, growth.slots)
    moves: dict[str, Tensor] = {}
    first = 0
    for old in graph:
        width = plan.widths.get(old.name, old.width)
        group = replace(old, width=width, first=first, producers=tuple(layers[id(p)] for p in old.producers))
        first += width
        if old.name in plan.displacements:
            _move(group, plan, parameters, growth, epsilon, moves)
    return moves


def _move(
    group: ChannelGroup,
    plan: GrowthPlan,
    parameters: Mapping[str, Tensor],
    growth: AxisGrowth,
    epsilon: float,
    moves: dict[str, Tensor],
) -> None:
    rows = {p: growth.rows(p, parameters[p]) for layer in group.producers for p in layer.parameters}
    theta = pack(group, rows)
    length = theta.norm(dim=1, keepdim=True) * epsilon if plan.relative else epsilon
    scatter(group, plan.displacements[group.name].to(theta) * length, moves, {p: row.shape for p, row in rows.items()})


def _with_slots(layers: Sequence[Layer], slots: Sequence[Tensor]) -> dict[int, Layer]:
    """Return the layers, by the ids of the old ones, with new slots in the order of their axes."""
    new = iter(slots)
    return {
        id(layer): replace(layer, axes=tuple(replace(axis, slots=next(new)) for axis in layer.axes)) for layer in layers
    }


def _traced_again(grown: nn.Module, graph: ChannelGraph, plan: GrowthPlan) -> ChannelGraph:
    """Return the graph of a grown network, after a look whether its groups are those of its parent, grown."""
    try:
        found = read_graph(grown, _example_inputs(grown, graph))
    except ModelError as error:
        raise ModelError(f"the model fails when it grows: {first_line(error.__cause__ or error)}") from error
    expected = {group.name: plan.widths.get(group.name, group.width) for group in graph}
    if {group.name: group.width for group in found} != expected:
        names = [n for n, width in expected.items() if {g.name: g.width for g in found}.get(n) != width]
        raise ModelError(f"{', '.join(names) or graph.groups[0].name}: copies of its neurons meet other channels")
    layers = [(layer.name, [axis.tensor for axis in layer.axes]) for layer in graph.layers]
    if [(layer.name, [axis.tensor for axis in layer.axes]) for layer in found.layers] != layers:
        raise ModelError("model: expected the layers of the trace in the grown network, got other ones")
    for group in found:
        if graph[group.name].splittable and not group.splittable:
            raise ModelError(f"{group.name}: cannot be split any more: {group.reason}")
    reasons = {group.name: group.reason for group in graph}
    return replace(found, groups=tuple(replace(group, reason=reasons[group.name]) for group in found))


def _check_outputs(model: nn.Module, grown: nn.Module, graph: ChannelGraph) -> None:
    """Refuse new neurons in functions such as log: where these are not defined, a weight of 0 does not help."""
    if not _finite(grown, graph) and _finite(model, graph):
        expected = "expected functions that are defined everywhere, got outputs that are not finite any more"
        raise ModelError(f"new neurons: {expected}; method signed stays where the old neurons are")


def _finite(model: nn.Module, graph: ChannelGraph) -> bool:
    with evaluation_mode(model):
        outputs = tensors(call(model, _example_inputs(model, graph)))
    return all(bool(x.isfinite().all()) for x in outputs)


def _example_inputs(model: nn.Module, graph: ChannelGraph) -> Any:
    """Return the inputs of the trace where the model now is, for it may have been moved since."""
    own = next(model.parameters())
    return pytree.tree_map_only(
        Tensor, lambda x: x.to(own.device, own.dtype if x.is_floating_point() else None), graph.example_inputs
    )


# -- modules -------------------------------------------------------------------------------------------------------


def replace_tensor(model: nn.Module, name: str, value: Tensor, requires_grad: bool) -> None:
    """Put a tensor into the place of a parameter or buffer."""
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    if attribute in module._parameters:
        module._parameters[attribute] = nn.Parameter(value, requires_grad=requires_grad)
    else:
        module._buffers[attribute] = value


def _set_attributes(model: nn.Module, layer: Layer) -> None:
    """Let a module say of itself what its tensors now are."""
    module = model.get_submodule(layer.name)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvTransposeNd):
        columns, rows = module.weight.shape[:2]
        if any(axis.role is Role.FOLLOW for axis in layer.axes):
            module.groups = columns
        module.out_channels, module.in_channels = rows * module.groups, columns
    elif isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = module.weight.shape[:2]
        if any(axis.role is Role.FOLLOW for axis in layer.axes):
            module.groups = module.groups * rows // module.out_channels
        module.out_channels, module.in_channels = rows, columns * module.groups
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = next(t for t in (module.weight, module.running_mean) if t is not None).numel()
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
