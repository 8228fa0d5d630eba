"""Wrappers around a network: those that can be seen through are, of the others one line says what to unwrap."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph

_QUANTISED = ("torch.ao.nn.", "torch.nn.quantized", "torch.nn.qat", "torch.nn.intrinsic")


def check_unwrapped(model: nn.Module) -> None:
    """Raise ModelError if a wrapper keeps the code or the parameters of a model from view.

    A `torch.compile`d module is run as its Python code; its names begin with `_orig_mod.`, those in a `DataParallel` on
    one device with `module.`, as those of its parameters do.
    """
    kind = type(model).__name__
    if isinstance(model, DistributedDataParallel) or kind == "FullyShardedDataParallel":
        expected = f"expected the module inside {kind}, which keeps its parameters in buckets, got the wrapper"
        raise ModelError(f"model: {expected}; trace and split model.module, then wrap the grown one")
    if isinstance(model, DataParallel) and len(model.device_ids) > 1:
        expected = f"expected the module inside DataParallel, which runs copies on {len(model.device_ids)} devices"
        raise ModelError(f"model: {expected}, got the wrapper; trace and split model.module, then wrap the grown one")


def graph_of_torchscript(model: nn.Module, example_inputs: object) -> ChannelGraph | None:
    """Return a graph without groups that says why it is empty, if the model is TorchScript; else None."""
    if not isinstance(model, torch.jit.ScriptModule):
        return None
    remark = "the model is TorchScript, which the trace cannot see; trace the module that it was made of"
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return ChannelGraph((), (), (), (), shapes, (), example_inputs, remark=remark)


def check_floats(model: nn.Module, graph: ChannelGraph) -> None:
    """Raise ModelError if all layers have quantised weights, or those are why a graph has no groups."""
    quantised = {name: module for name, module in model.named_modules() if _is_quantised(module)}
    others = (module for module in model.modules() if module._parameters and not _is_quantised(module))
    if quantised and (not graph.groups or next(others, None) is None):
        name, module = next(iter(quantised.items()))
        got = f"quantised ones ({name or 'the model'}: {type(module).__name__})"
        raise ModelError(f"model: expected weights that are parameters, got {got}; grow it, then quantise it")


def _is_quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_QUANTISED)
