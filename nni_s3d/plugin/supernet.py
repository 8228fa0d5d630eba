"""A task as a supernet, for NNI's one-shot strategies: its largest network, of whose layers a part can be taken.

NNI knows mutable versions of a few kinds of layers. The channel graph says which of their widths belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from nni.mutable import Categorical, MutableExpression
from nni.nas.nn.pytorch import ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import Axis, ChannelGraph
from nni_s3d.growth.trace import trace
from nni_s3d.tasks.task import read_task

Size: TypeAlias = "int | MutableExpression[int]"


class Supernet(ModelSpace):
    """The largest network of a task's search space, with a choice for every width.

    Args:
        task: path of the task.yml.

    Raises:
        ConfigError: the task or its search space is not what it should be.
        ModelError: a layer with a width of the search space is of a kind that NNI cannot make narrower, or reads
            several groups of channels.
    """

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = read_task(Path(task))
        space, shape = self.task.space(), self.task.load_data().shape
        network = self.task.build_model(space.high, self.task.seed, shape)
        graph = trace(network, self.task.example(shape))
        self.network = network
        if unknown := [name for name in space.values if name not in graph.widths]:
            raise ModelError(f"model: expected {unknown[0]}, of the search space, among the layers that can be split")
        choices = {name: Categorical(sorted(values), label=name) for name, values in space.values.items()}
        for name, sizes in _sizes(graph, choices).items():
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, _mutable(name, network.get_submodule(name), sizes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the network."""
        outputs: Tensor = self.network(inputs)
        return outputs


def _sizes(graph: ChannelGraph, choices: Mapping[str, Categorical[int]]) -> dict[str, dict[int, Size]]:
    """Return the sizes that can be chosen, {module: {dimension of its weight, or else of its buffers: size}}."""
    sizes: dict[str, dict[int, Size]] = {}
    for layer in graph.layers:
        of_weight = [axis for axis in layer.axes if axis.tensor in layer.parameters[:1]]
        for axis in of_weight or layer.axes:
            if (size := _size(axis, graph, choices)) is not None:
                sizes.setdefault(layer.name, {})[axis.dim] = size
    return sizes


def _size(axis: Axis, graph: ChannelGraph, choices: Mapping[str, Categorical[int]]) -> Size | None:
    """Return the size of a dimension as so many slots for every channel of a choice; None if nothing chooses it."""
    channels = axis.slots.unique()
    groups = [group for group in graph if any(group.first <= c < group.first + group.width for c in channels.tolist())]
    if not any(group.name in choices for group in groups):
        return None
    first, positions = groups[0], len(axis.slots) // groups[0].width
    every = torch.arange(first.first, first.first + first.width)
    if axis.blocks > 1 or not torch.equal(axis.slots, every.repeat_interleave(positions)):
        names = ", ".join(group.name for group in groups)
        raise ModelError(f"{axis.tensor}: expected a layer that reads one group of channels in its order, got {names}")
    choice: MutableExpression[int] = choices[first.name]
    return choice * positions if positions > 1 else choice


def _mutable(name: str, module: nn.Module, sizes: Mapping[int, Size]) -> nn.Module:
    """Return NNI's version of a layer, some of whose sizes are chosen."""
    for kind, make in _MAKERS.items():
        if type(module) is kind:
            return make(module, sizes)
    kinds = ", ".join(kind.__name__ for kind in _MAKERS)
    raise ModelError(
        f"{name or 'model'}: expected one of {kinds}, which NNI can make narrower, got {type(module).__name__}"
    )


def _convolution(module: nn.Conv2d, sizes: Mapping[int, Size]) -> nn.Module:
    depthwise = module.groups == module.in_channels == module.out_channels
    out = sizes.get(0, module.out_channels)
    made: nn.Module = MutableConv2d(
        out if depthwise else sizes.get(1, module.in_channels),
        out,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=out if depthwise else module.groups,
        bias=module.bias is not None,
        padding_mode=module.padding_mode,
    )
    return made


def _linear(module: nn.Linear, sizes: Mapping[int, Size]) -> nn.Module:
    has_bias = module.bias is not None
    made: nn.Module = MutableLinear(sizes.get(1, module.in_features), sizes.get(0, module.out_features), has_bias)
    return made


def _batch_norm(module: nn.BatchNorm2d, sizes: Mapping[int, Size]) -> nn.Module:
    made: nn.Module = MutableBatchNorm2d(
        sizes[0], module.eps, module.momentum, module.affine, module.track_running_stats
    )
    return made


_MAKERS: dict[type[nn.Module], Callable[[Any, Mapping[int, Size]], nn.Module]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
}
