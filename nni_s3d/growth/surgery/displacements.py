"""How far the parameters of copies move: epsilon * delta_j, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup, Layer
from nni_s3d.growth.graph.theta import pack, scatter
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.surgery.axis_growth import AxisGrowth


@dataclass(frozen=True)
class StepLength:
    """How long a step of |delta_j| = 1 is: the only place that knows the unit of epsilon.

    Raises:
        ConfigError: epsilon is negative or not a number.
    """

    epsilon: float
    relative: bool = False  # in units of each neuron's |theta_i|

    def __post_init__(self) -> None:
        epsilon = self.epsilon
        if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon < math.inf:
            raise ConfigError(f"epsilon: expected a number >= 0, got {epsilon!r}")

    def of(self, theta: Tensor) -> Tensor | float:
        """Return the lengths for parameters theta (neurons, d): (neurons, 1), or one for all of them."""
        return theta.norm(dim=1, keepdim=True) * self.epsilon if self.relative else self.epsilon


def moves(
    parameters: Mapping[str, Tensor], graph: ChannelGraph, growth: AxisGrowth, plan: GrowthPlan, step: StepLength
) -> dict[str, Tensor]:
    """Return epsilon * delta_j for every parameter of a producer that moves, with its new rows and its old columns.

    Args:
        parameters: of the network that is split, by their dotted names.
        graph: its channel graph.
        growth: how its dimensions grow.
        plan: whose displacements count.
        step: the length of a displacement.
    """
    moved: dict[str, Tensor] = {}
    for group in _grown_groups(graph, growth, plan):
        if group.name in plan.displacements:
            rows = {p: growth.rows(p, parameters[p]) for layer in group.producers for p in layer.parameters}
            theta = pack(group, rows)
            delta = plan.displacements[group.name].to(theta)
            scatter(group, step.of(theta) * delta, moved, {p: row.shape for p, row in rows.items()})
    return {name: move for name, move in moved.items() if name not in graph.frozen}


def _grown_groups(graph: ChannelGraph, growth: AxisGrowth, plan: GrowthPlan) -> list[ChannelGroup]:
    """Return the groups with their new widths, and with the new slots of their producers."""
    new_slots = iter(growth.slots)
    layers: dict[int, Layer] = {}  # by the ids of the old ones
    for layer in graph.layers:
        axes = tuple(replace(axis, slots=next(new_slots)) for axis in layer.axes)
        layers[id(layer)] = replace(layer, axes=axes)
    groups, first = [], 0
    for group in graph:
        width = plan.widths.get(group.name, group.width)
        producers = tuple(layers[id(producer)] for producer in group.producers)
        groups.append(replace(group, width=width, first=first, producers=producers))
        first += width
    return groups
