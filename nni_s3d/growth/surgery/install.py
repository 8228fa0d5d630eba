"""Modules: put grown tensors into them, and set their sizes, such as `out_channels`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from nni_s3d.growth.graph.channels import Layer, Role
from nni_s3d.growth.graph.register_layer import set_registered_sizes
from nni_s3d.growth.graph.width_attributes import WidthAttribute

# What modules that are not PyTorch's call their sizes; `nf` and `nx` are those of GPT-2's Conv1D. The rehearsal finds
# out where such a number means something else.
_NEUTRAL = ("channels", "num_channels", "n_channels", "num_features", "features", "dim", "groups", "num_groups")
_OUTPUTS = ("out_channels", "out_features", "out_dim", "nf")
_INPUTS = ("in_channels", "in_features", "in_dim", "nx")
_SIZE_NAMES = {Role.ROW: _OUTPUTS, Role.COLUMN: _INPUTS, Role.FOLLOW: (*_NEUTRAL, *_OUTPUTS, *_INPUTS)}


def install(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    layers: Iterable[Layer],
    attributes: Iterable[tuple[WidthAttribute, int]] = (),
) -> None:
    """Put tensors into the places of parameters and buffers of a model, which is changed.

    Args:
        model: whose parameters and buffers have these dotted names.
        tensors: {name: value}; a parameter stays one, with gradients or without.
        layers: whose modules know their own sizes.
        attributes: of modules, with their values.
    """
    modules = dict(model.named_modules())
    sizes = _written_sizes(modules, tensors, layers := list(layers))
    for name, value in tensors.items():
        path, _, attribute = name.rpartition(".")
        _replace(modules[path], attribute, value)
    for of_module, size in attributes:
        _set_attribute(modules[of_module.module], of_module, size)
    for layer in layers:
        follows = layer.kind != "scale" and all(axis.role is Role.FOLLOW for axis in layer.axes)
        _set_sizes(modules[layer.name], follows)
    for module, attribute, size in sizes:
        setattr(module, attribute, size)
    set_registered_sizes(model)


def _written_sizes(
    modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], layers: Iterable[Layer]
) -> list[tuple[nn.Module, str, Any]]:
    """Return the sizes that modules of other people's own say of tensors that grow, under names that are usual."""
    found: list[tuple[nn.Module, str, Any]] = []
    for axis in (axis for layer in layers for axis in layer.axes if axis.tensor in tensors):
        path, _, attribute = axis.tensor.rpartition(".")
        module = modules[path]
        old, new = getattr(module, attribute).shape[axis.dim], tensors[axis.tensor].shape[axis.dim]
        for name in _SIZE_NAMES[axis.role]:
            value = vars(module).get(name)
            if type(value) is int and value == old:
                found.append((module, name, new))
        shape = vars(module).get("normalized_shape")  # of a layer norm
        if isinstance(shape, (tuple, list)) and tuple(shape) == getattr(module, attribute).shape:
            found.append((module, "normalized_shape", type(shape)(tensors[axis.tensor].shape)))
        elif type(shape) is int and shape == old:
            found.append((module, "normalized_shape", new))
    return found


def _replace(module: nn.Module, attribute: str, value: Tensor) -> None:
    old = module._parameters.get(attribute)
    if old is not None:
        module._parameters[attribute] = nn.Parameter(value, requires_grad=old.requires_grad)
    else:
        module._buffers[attribute] = value


def _set_attribute(module: nn.Module, attribute: WidthAttribute, size: int) -> None:
    """Set an attribute; what holds it as an element is exchanged, since others may share it."""
    value: object = size
    if attribute.element is not None:
        old = vars(module)[attribute.name]
        value = type(old)(size if n == attribute.element else one for n, one in enumerate(old))
    vars(module)[attribute.name] = value


def _set_sizes(module: nn.Module, follows: bool) -> None:
    """Set the sizes that a module of PyTorch says of itself, from its tensors; `follows` if it is depthwise."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvTransposeNd):
        columns, rows = module.weight.shape[:2]
        if follows:
            module.groups = columns
        module.out_channels, module.in_channels = rows * module.groups, columns
    elif isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = module.weight.shape[:2]
        if follows:
            module.groups = module.groups * rows // module.out_channels
        module.out_channels, module.in_channels = rows, columns * module.groups
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = next(t for t in (module.weight, module.running_mean) if t is not None).numel()
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = module.weight.numel()
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
