"""The channel graph: which parameters of a network belong to which neuron, and who reads it.

Every dimension of a parameter or buffer that is indexed by channels is one `Axis`, which says for each of its slots
the channel that sits there. Surgery and cost are generic loops over axes; residual streams (several producers of a
channel) and concatenation (channels of several groups along one axis) need nothing more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.averages import Average, averaged
from nni_s3d.growth.graph.row_norm import RowNorm
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from nni_s3d.growth.text_table import table_lines


class Role(Enum):
    """What an axis is to the channels along it."""

    ROW = "row"  # of a producer: the slot holds parameters of the neuron, part of theta
    COLUMN = "column"  # of a consumer: the slot is multiplied by the copy's output weight
    FOLLOW = "follow"  # of a follower: the slot is copied with the neuron


@dataclass(frozen=True, eq=False)
class Axis:
    """One dimension of one parameter or buffer that is indexed by channels."""

    tensor: str  # dotted name of the parameter or buffer
    dim: int
    role: Role
    slots: Tensor  # (n,) int64: the channel at every slot, numbered over the whole graph; -1 where there is none
    # Of a grouped convolution or a stack of weights: along its first dimension lie this many blocks, each with slots of
    # its own, one block after the other in `slots`; the dimension of the tensor has the slots of one block.
    blocks: int = 1
    carries: Tensor | None = (
        None  # (n,) bool: slots with the weights of copies in a product, see `products_of_channels`
    )
    is_metric: bool = False  # whether the weights of copies are their shares there


@dataclass(frozen=True, eq=False)
class Layer:
    """One use of a module's parameters in the example run."""

    name: str  # dotted name of the module that owns the parameters
    kind: str  # the function that was called: "conv2d", "linear", "batch_norm", "prelu"
    parameters: tuple[str, ...]  # their dotted names, the weight first, or what it is computed from
    axes: tuple[Axis, ...]
    norm: RowNorm | None = None  # of the rows of a weight that is computed

    @property
    def weight(self) -> str:
        """Dotted name of the weight, which identifies the layer."""
        return self.parameters[0]

    @property
    def row_slots(self) -> Tensor:
        """The channels that its rows produce (rows,); none if it is no producer."""
        rows = (axis.slots for axis in self.axes if axis.role is Role.ROW)
        return next(rows, torch.empty(0, dtype=torch.int64))

    def __str__(self) -> str:
        return self.name or self.axes[0].tensor  # the root module may own several weights


@dataclass(frozen=True, eq=False)
class Operation:
    """What a network computes once per sample: a row of the cost tables in `cost`."""

    kind: str  # the function that was called
    # How often the weight is applied, or how many elements or MACs every slot has, or MACs where there are neither.
    repeats: float
    weight: str | None = None  # for layers with a weight
    slots: Tensor | None = None  # (n,) the channels that other work runs over, -1 where there is none


@dataclass(frozen=True, eq=False)
class EqualParts:
    """Sets of channels that must stay equally large, since a layer or a reshape cuts its input into equal parts."""

    where: str  # the layer or function that cuts
    parts: Tensor  # (parts, n) int64: the channel at every slot of every part, -1 where there is none
    reshape: int | None = None  # which of the reshapes that lay channels out along several dimensions; None for others
    cut: int | None = None  # which of the functions that cut a tensor into pieces; None for others


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that must change together: one width of the architecture."""

    name: str  # the dotted name of its first producer
    width: int
    first: int  # number of its first channel in the whole graph
    producers: tuple[Layer, ...]
    followers: tuple[Layer, ...]
    consumers: tuple[Layer, ...]
    reason: str = ""  # why it cannot be split; empty if it can

    @property
    def splittable(self) -> bool:
        """Whether every copy of a neuron of this group can be told exactly what to do."""
        return not self.reason

    @property
    def channels(self) -> slice:
        """Where the group's channels sit in a vector over all channels of the graph."""
        return slice(self.first, self.first + self.width)

    @property
    def parameters(self) -> frozenset[str]:
        """Names of the parameters of the producers."""
        return frozenset(name for layer in self.producers for name in layer.parameters)

    def rows(self, layer: Layer) -> Tensor:
        """Return the slots of each neuron along a producer's rows, shape (width, rows per neuron)."""
        return self._rows[layer.weight]

    @cached_property
    def _rows(self) -> dict[str, Tensor]:
        rows = {}
        for layer in self.producers:
            channels = layer.row_slots
            slots = ((channels >= self.first) & (channels < self.first + self.width)).nonzero()[:, 0]
            rows[layer.weight] = slots[torch.argsort(channels[slots], stable=True)].reshape(self.width, -1)
        return rows


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """All channel groups of a model, in the order of its forward pass.

    Iterates over its groups; ``graph["features.0"]`` looks one up; printing shows a table.
    """

    groups: tuple[ChannelGroup, ...]
    layers: tuple[Layer, ...]
    operations: tuple[Operation, ...]
    equal_parts: tuple[EqualParts, ...]
    shapes: dict[str, torch.Size]  # of every parameter
    unreached: tuple[str, ...]  # modules with parameters that the example run did not come to
    example_inputs: object = field(repr=False)
    buffer_shapes: dict[str, torch.Size] = field(default_factory=dict)  # of every buffer
    uncounted: tuple[str, ...] = ()  # functions that may multiply, and whose MACs and FLOPs are not known
    not_followed: tuple[str, ...] = ()  # matrices and filters that are in no layer, and the function that took each
    frozen: frozenset[str] = frozenset()  # parameters that are not trained while others are: no split moves them
    growing_dims: Mapping[int, int] = field(default_factory=dict)  # {reshape: which dimension grows, if not the last}
    attributes: tuple[WidthAttribute, ...] = ()  # widths that modules keep, and that grow
    remark: str = ""  # why there is nothing to be seen
    averages: tuple[Average, ...] = ()  # sets of channels that must all have the same number of copies
    reading_calls: tuple[tuple[str, bool], ...] = ()  # see `averages.ReadingCalls`
    divided: tuple[Tensor, ...] = ()  # (..., d) channels of each product that divides by the square root of d
    channels_pass: bool = True  # weights that work along positions, see `rules.along_positions`
    _by_name: dict[str, ChannelGroup] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {group.name: group for group in self.groups})

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> ChannelGroup:
        if name not in self._by_name:
            raise ModelError(f"channel group {name!r}: expected one of {', '.join(self._by_name) or 'none'}")
        return self._by_name[name]

    @property
    def splittable_groups(self) -> tuple[ChannelGroup, ...]:
        """The groups that can be split."""
        return tuple(group for group in self.groups if group.splittable)

    @property
    def widths(self) -> dict[str, int]:
        """The width of every splittable group."""
        return {group.name: group.width for group in self.splittable_groups}

    @cached_property
    def averaged(self) -> Tensor:
        """Which channels are averaged together with others, bool (channels,)."""
        return averaged(self.averages, self.num_channels)

    @property
    def num_channels(self) -> int:
        """Number of channels of all groups together."""
        return sum(group.width for group in self.groups)

    def per_channel(self, copies: Mapping[str, Tensor]) -> Tensor:
        """Return the copies {group: (width,)} of all groups in one vector (channels,), with 1 where one is left out."""
        vector = torch.ones(self.num_channels, dtype=torch.int64)
        for name, of_group in copies.items():
            vector[self[name].channels] = of_group
        return vector

    def check(self, model: nn.Module) -> None:
        """Raise ModelError if the parameters of a model are not those of the model that was traced."""
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        for name in (*self.shapes, *shapes):
            if shapes.get(name) != self.shapes.get(name):
                traced = self.shapes.get(name)
                expected = "no such parameter" if traced is None else f"a parameter of shape {tuple(traced)}"
                got = f"one of shape {tuple(shapes[name])}" if name in shapes else "none"
                raise ModelError(f"{name}: expected {expected}, got {got}; trace the model again")

    def refuse_others(self, names: Collection[str], reason: str) -> ChannelGraph:
        """Return the graph with all other groups refused for a reason."""
        groups = (group if group.name in names else replace(group, reason=group.reason or reason) for group in self)
        return replace(self, groups=tuple(groups))

    def axes(self) -> Iterator[Axis]:
        """Iterate over all axes of all layers."""
        for layer in self.layers:
            yield from layer.axes

    def __str__(self) -> str:
        titles = ("group", "width", "followers", "consumers", "splittable")
        rows = [
            (
                group.name + "".join(f" + {producer}" for producer in group.producers[1:]),
                str(group.width),
                ", ".join(map(str, group.followers)) or "-",
                ", ".join(map(str, group.consumers)) or "-",
                "yes" if group.splittable else f"no: {group.reason}",
            )
            for group in self.groups
        ]
        return "\n".join([*table_lines(titles, rows), *self.remarks()])

    def remarks(self) -> list[str]:
        """Return what a table of the groups does not show, one line each."""
        lines = [self.remark] if self.remark else []
        if self.unreached:
            lines.append(f"not reached by the example run: {', '.join(self.unreached)}")
        if self.not_followed:
            lines.append(f"cannot grow, since no rule follows them: {', '.join(self.not_followed)}")
        if self.uncounted:
            lines.append(f"MACs and FLOPs are not known of: {', '.join(self.uncounted)}")
        if rests := [group.name for group in self.splittable_groups if group.parameters <= self.frozen]:
            lines.append(f"frozen, so that nothing is gained by splitting: {', '.join(rests)}")
        return lines
