"""Split neurons: tensors, then modules, then the model, which is copied and never touched.

Every copy of a neuron sits where the neuron sat, so a dimension grows by repeating its slots in place, and reshapes
between layers (flatten, concatenation) stay valid. Values: rows and followers are copied, rows move by
epsilon * delta_j, and a consumer's columns are multiplied by w_j. Where a layer is both, the column rule applies to its
displacement too, so that neighbouring splits compose.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.channels import Axis, ChannelGraph, Layer, Role
from nni_s3d.growth.layout import pack, unpack
from nni_s3d.growth.plan import GrowthPlan


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
    relative: bool = False,
) -> SplitResult:
    """Return a grown copy of the model; with epsilon = 0 it computes the same function.

    Args:
        model: the network that was traced; it is left as it is.
        graph: its channel graph.
        plan: from `select` or `plan_from_copies`.
        epsilon: length of the displacements.
        optimizer: if given, its state is carried over. Its buffers are running means of gradients or of their
            squares, so a copy receives what it would have gathered had it been there all along: the chain rule
            multiplies the gradient of a copy's own parameters by w_j, and leaves that of its consumers' columns.
        relative: measure epsilon in units of each neuron's |theta_i|.

    Raises:
        ConfigError: epsilon is negative or not a number.
        ModelError: the plan does not belong to this graph, or an optimizer keeps buffers of an unknown kind.
    """
    if not 0 <= epsilon < float("inf"):
        raise ConfigError(f"epsilon: expected a number >= 0, got {epsilon!r}")
    copies = _copies(graph, plan)
    growth = _Growth(graph, plan, copies)
    grown = copy.deepcopy(model)
    moves = _moves(model, growth, plan, epsilon, relative)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in growth.axes:
            value = growth.value(name, tensor, moves.get(name))
            if value.shape != tensor.shape:  # what does not grow stays as it is, tied to another parameter perhaps
                _replace(grown, name, value, requires_grad=tensor.requires_grad)
    for layer in growth.graph.layers:
        _set_attributes(grown, layer)
    shapes = {name: parameter.shape for name, parameter in grown.named_parameters()}
    index_map = {name: torch.arange(number.numel()).repeat_interleave(number) for name, number in plan.copies.items()}
    state = None if optimizer is None else _optimizer_state(model, optimizer, growth)
    return SplitResult(grown, replace(growth.graph, shapes=shapes), plan.widths, index_map, state)


# -- tensors -----------------------------------------------------------------------------------------------------


def repeat_slots(slots: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Return (source, copy) of every slot of a grown dimension: the old slot, and which copy of its channel it holds.

    Adjacent slots of one channel, such as the positions that a flatten left side by side, are repeated as a block.

    Args:
        slots: (n,) channel of every slot, -1 for none.
        copies: (channels,) number of copies of every channel.
    """
    number = torch.where(slots >= 0, copies[slots.clamp(min=0)], 1)
    source = torch.arange(slots.numel()).repeat_interleave(number)
    which = torch.arange(source.numel()) - (number.cumsum(0) - number).repeat_interleave(number)
    new_block = torch.ones_like(slots, dtype=torch.bool)
    new_block[1:] = (slots[1:] != slots[:-1]) | (slots[1:] < 0)
    block = new_block.cumsum(0)[source]
    order = torch.argsort(block * (int(copies.max()) + 1) + which, stable=True)
    return source[order], which[order]


class _Growth:
    """How every axis of a graph grows, and the graph that results."""

    def __init__(self, graph: ChannelGraph, plan: GrowthPlan, copies: Tensor) -> None:
        start = copies.cumsum(0) - copies  # the first new channel of every old one
        weights = torch.ones(int(copies.sum()), dtype=torch.float64)
        groups, first = [], 0
        for group in graph:
            width = int(copies[group.channels].sum())
            weights[first : first + width] = plan.weights.get(group.name, torch.ones(width)).double().cpu()
            groups.append(replace(group, width=width, first=first))
            first += width
        self.axes: dict[str, list[tuple[Axis, Tensor, Tensor]]] = {}  # (axis, source, w_j of every slot)
        renewed = {id(layer): self._renewed(layer, copies, start, weights) for layer in graph.layers}
        self.graph = replace(
            graph,
            groups=tuple(
                replace(
                    group,
                    producers=tuple(renewed[id(layer)] for layer in group.producers),
                    followers=tuple(renewed[id(layer)] for layer in group.followers),
                    consumers=tuple(renewed[id(layer)] for layer in group.consumers),
                )
                for group in groups
            ),
            layers=tuple(renewed[id(layer)] for layer in graph.layers),
            works=tuple(
                replace(w, slots=self._renewed_slots(w.slots, copies, start)[1]) if w.slots is not None else w
                for w in graph.works
            ),
        )

    def value(self, name: str, tensor: Tensor, move: Tensor | None) -> Tensor:
        """Return the grown parameter or buffer; `move` has the new rows and the old columns."""
        tensor = self.rows(name, tensor)
        if move is not None:
            tensor = tensor + move
        for axis, source, weights in self._of(name, Role.COLUMN):
            tensor = tensor.index_select(axis.dim, source.to(tensor.device)) * _along(tensor, axis.dim, weights)
        return tensor.clone()

    def rows(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor with its new rows and its old columns."""
        for axis, source, _ in self._of(name, Role.ROW, Role.FOLLOW):
            tensor = tensor.index_select(axis.dim, source.to(tensor.device))
        return tensor

    def gradient(self, name: str, tensor: Tensor, power: int) -> Tensor:
        """Return what a running mean of gradients to this power would be had the copies been there all along."""
        for axis, source, weights in self._of(name, Role.ROW, Role.FOLLOW):
            scale = weights**power if power else weights.sign()
            tensor = tensor.index_select(axis.dim, source.to(tensor.device)) * _along(tensor, axis.dim, scale)
        for axis, source, _ in self._of(name, Role.COLUMN):
            tensor = tensor.index_select(axis.dim, source.to(tensor.device))
        return tensor.clone()

    def _of(self, name: str, *roles: Role) -> list[tuple[Axis, Tensor, Tensor]]:
        return [entry for entry in self.axes.get(name, ()) if entry[0].role in roles]

    def _renewed(self, layer: Layer, copies: Tensor, start: Tensor, weights: Tensor) -> Layer:
        axes = []
        for axis in layer.axes:
            source, slots = self._renewed_slots(axis.slots, copies, start)
            scale = torch.where(slots >= 0, weights[slots.clamp(min=0)], 1.0)
            self.axes.setdefault(axis.tensor, []).append((axis, source, scale))
            axes.append(replace(axis, slots=slots))
        return replace(layer, axes=tuple(axes))

    @staticmethod
    def _renewed_slots(slots: Tensor, copies: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        source, which = repeat_slots(slots, copies)
        old = slots[source]
        return source, torch.where(old >= 0, start[old.clamp(min=0)] + which, -1)


def _along(tensor: Tensor, dim: int, values: Tensor) -> Tensor:
    """Shape (n,) values so that they multiply `tensor` along one dimension."""
    shape = [1] * tensor.dim()
    shape[dim] = -1
    return values.to(tensor.device, tensor.dtype if tensor.is_floating_point() else None).reshape(shape)


def _copies(graph: ChannelGraph, plan: GrowthPlan) -> Tensor:
    """Return the plan's copies (channels,), after a look whether it is a plan for this graph."""
    expected = graph.widths
    found = {name: number.numel() for name, number in plan.copies.items()}
    if found != expected:
        raise ModelError(f"plan: expected one for the widths {expected}, got one for {found}")
    copies = torch.ones(graph.channels, dtype=torch.int64)
    for name, number in plan.copies.items():
        copies[graph[name].channels] = number
    return copies


def _moves(model: nn.Module, growth: _Growth, plan: GrowthPlan, epsilon: float, relative: bool) -> dict[str, Tensor]:
    """Return epsilon * delta for every producer parameter, with its new rows and its old columns."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    moves: dict[str, Tensor] = {}
    for name, displacement in plan.displacements.items():
        group = growth.graph[name]
        rows = {p: growth.rows(p, parameters[p]) for layer in group.producers for p in layer.parameters}
        theta = pack(group, rows)
        length = theta.norm(dim=1, keepdim=True) * epsilon if relative else epsilon
        moves |= unpack(group, displacement.to(theta) * length, {p: row.shape for p, row in rows.items()})
    return moves


# -- modules and the model ---------------------------------------------------------------------------------------


def _replace(model: nn.Module, name: str, value: Tensor, requires_grad: bool) -> None:
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
    elif isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = module.weight.shape[:2]
        if any(axis.role is Role.FOLLOW for axis in layer.axes):
            module.groups = module.groups * rows // module.out_channels
        module.out_channels, module.in_channels = rows, columns * module.groups
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = next(axis.slots.numel() for axis in layer.axes)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()


# Which power of the gradient the buffers of PyTorch's optimizers average; 0 is its sign.
_POWERS = {
    "momentum_buffer": 1,
    "exp_avg": 1,
    "exp_avg_sq": 2,
    "max_exp_avg_sq": 2,
    "square_avg": 2,
    "grad_avg": 1,
    "sum": 2,
}


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, growth: _Growth) -> dict[str, Any]:
    """Return the optimizer's state dict with every buffer grown like its parameter's gradient."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [parameter for settings in optimizer.param_groups for parameter in settings["params"]]
    state = optimizer.state_dict()
    grown = {}
    for number, buffers in state["state"].items():
        parameter = ordered[number]
        name = names.get(id(parameter))
        if name is None:
            raise ModelError("optimizer: expected one over the parameters of the model that is split")
        powers = _POWERS | ({"momentum_buffer": 0} if "square_avg" in buffers else {})  # RMSprop's averages g / |g|
        grown[number] = {
            key: _grown_buffer(name, parameter, key, value, growth, powers) for key, value in buffers.items()
        }
    return {**copy.deepcopy({key: value for key, value in state.items() if key != "state"}), "state": grown}


def _grown_buffer(name: str, parameter: Tensor, key: str, value: Any, growth: _Growth, powers: dict[str, int]) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape or name not in growth.axes:
        return copy.deepcopy(value)
    if key not in powers:
        raise ModelError(f"optimizer: expected buffers among {', '.join(powers)}, got {key!r} for {name}")
    return growth.gradient(name, value, powers[key])
