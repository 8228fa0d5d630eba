"""Modules: put grown tensors into them, and set their sizes, such as `out_channels`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from nni_s3d.growth.graph.channels import Layer, Role
from nni_s3d.growth.graph.register_layer import set_registered_sizes


def install(model: nn.Module, tensors: Mapping[str, Tensor], layers: Iterable[Layer]) -> None:
    """Put tensors into the places of parameters and buffers of a model, which is changed.

    Args:
        model: whose parameters and buffers have these dotted names.
        tensors: {name: value}; a parameter stays one, with gradients or without.
        layers: whose modules know their own sizes.
    """
    modules = dict(model.named_modules())
    for name, value in tensors.items():
        path, _, attribute = name.rpartition(".")
        _replace(modules[path], attribute, value)
    for layer in layers:
        _set_sizes(modules[layer.name], any(axis.role is Role.FOLLOW for axis in layer.axes))
    set_registered_sizes(model)


def _replace(module: nn.Module, attribute: str, value: Tensor) -> None:
    old = module._parameters.get(attribute)
    if old is not None:
        module._parameters[attribute] = nn.Parameter(value, requires_grad=old.requires_grad)
    else:
        module._buffers[attribute] = value


@contextmanager
def modules_restored(model: nn.Module) -> Iterator[None]:
    """Give every module its own tensors and attributes back in the end. No tensor is copied."""
    # Modules that are compiled, or of TorchScript, keep theirs elsewhere.
    modules = [m for m in model.modules() if isinstance(vars(m).get("_parameters"), dict)]
    before = [(m, dict(vars(m)), dict(m._parameters), dict(m._buffers)) for m in modules]
    try:
        yield
    finally:
        for module, attributes, parameters, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)


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
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
