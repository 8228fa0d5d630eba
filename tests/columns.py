"""Factors on the columns that read neurons, written out."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, ChannelGraph, Role


def multiply_columns(tensors: Mapping[str, Tensor], graph: ChannelGraph, factors: Tensor) -> None:
    """Multiply what reads every channel by its factor (channels + 1,), in place; the last is for no channel.

    That is the columns of layers, and the entries that carry the weights of copies to products.

    Where weight norm divides rows by their size, this is that of before.
    """
    for layer in graph.layers:
        for axis in (axis for axis in layer.axes if axis.role is not Role.COLUMN and axis.carries is not None):
            _multiply_slots(tensors[axis.tensor], axis, torch.where(axis.carries, factors[axis.slots], 1.0))
        for axis in (axis for axis in layer.axes if axis.role is Role.COLUMN):
            weight = tensors[axis.tensor]
            before = weight.flatten(1).norm(dim=1)
            _multiply_slots(weight, axis, factors[axis.slots])
            if layer.norm is not None:
                length = tensors[layer.norm.length]
                length.mul_((weight.flatten(1).norm(dim=1) / before).reshape(length.shape))


def _multiply_slots(tensor: Tensor, axis: Axis, factors: Tensor) -> None:
    """Multiply what a tensor holds at every slot of an axis by its factor (slots,), in place."""
    if axis.blocks == 1:
        tensor.mul_(factors.reshape([-1 if dim == axis.dim else 1 for dim in range(tensor.dim())]))
        return
    in_blocks = tensor.unflatten(0, (axis.blocks, -1))
    shape = [1] * in_blocks.dim()
    shape[0], shape[axis.dim + 1] = axis.blocks, -1
    in_blocks.mul_(factors.reshape(shape))
