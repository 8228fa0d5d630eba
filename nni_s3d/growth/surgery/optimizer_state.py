"""Carry an optimizer's state through a split."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.errors import ModelError
from nni_s3d.growth.surgery.axis_growth import AxisGrowth

# Buffers that are made of gradients: what multiplies them when the gradient is multiplied by w.
_OF_GRADIENTS = {
    "momentum_buffer": lambda w: w,
    "exp_avg": lambda w: w,
    "grad_avg": lambda w: w,
    "prev": lambda w: w,
    "exp_avg_sq": torch.square,
    "max_exp_avg_sq": torch.square,
    "square_avg": torch.square,
    "sum": torch.square,
    "variance": torch.square,
    "exp_inf": torch.abs,
    "acc_delta": torch.ones_like,  # of Adadelta's steps, which do not depend on the scale of the gradient
}
_OF_STEPS = {"step_size"}  # lengths of steps, one for each element
_OF_PARAMETERS = {"ax", "z"}  # ASGD's average, and the iterate of optimizers without a schedule
_KNOWN = ", ".join((*_OF_GRADIENTS, *_OF_STEPS, *_OF_PARAMETERS))


def grown_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, growth: AxisGrowth, moves: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return the optimizer's state dict with every buffer grown like its parameter, or like its gradient.

    Args:
        model: the network before.
        optimizer: over its parameters.
        growth: how their dimensions grow.
        moves: how parameters move, as `AxisGrowth.value` takes it.

    Raises:
        ModelError: it is an optimizer of another model, or keeps state that nobody knows how to grow.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [parameter for settings in optimizer.param_groups for parameter in settings["params"]]
    if any(id(parameter) not in names for parameter in ordered):
        raise ModelError("optimizer: expected one over the parameters of the model that is split, got one over others")
    state = optimizer.state_dict()
    together = sum(parameter.numel() for parameter in ordered)
    grown: dict[Any, Any] = {}
    for place, buffers in state["state"].items():
        if place not in range(len(ordered)):
            raise ModelError(f"optimizer: expected state of parameters alone, got {place!r}; start a new one")
        name = names[id(ordered[place])]
        grown[place] = {}
        for key, value in buffers.items():
            _check(name, ordered[place], key, value, growth, together)
            grown[place][key] = _grown_buffer(name, key, value, growth, moves, signs="square_avg" in buffers)
    return {**copy.deepcopy({key: value for key, value in state.items() if key != "state"}), "state": grown}


def _check(name: str, parameter: Tensor, key: str, value: Any, growth: AxisGrowth, together: int) -> None:
    """Refuse state that nobody knows how to grow.

    Args:
        name: of the parameter that it belongs to.
        parameter: the parameter before.
        key: what the optimizer calls it.
        value: the state itself.
        growth: which parameters grow.
        together: elements of all parameters together, for an optimizer that lays them end to end.
    """
    for x in (x for x in pytree.tree_leaves(value) if isinstance(x, Tensor) and x.dim()):
        of_parameter = value is x and x.shape == parameter.shape
        if of_parameter and growth.grows(name) and key not in (*_OF_GRADIENTS, *_OF_STEPS, *_OF_PARAMETERS):
            raise ModelError(f"optimizer: expected buffers among {_KNOWN}, got {key!r} for {name}; start a new one")
        if not of_parameter and (growth.grows(name) or x.numel() == together):
            raise ModelError(
                f"optimizer: expected buffers for {name} of its shape {tuple(parameter.shape)}, got {key!r} of shape "
                f"{tuple(x.shape)}, which nobody knows how to grow; start a new one"
            )


def _grown_buffer(name: str, key: str, value: Any, growth: AxisGrowth, moves: Mapping[str, Tensor], signs: bool) -> Any:
    """Return a buffer that has passed the check; `signs` says whether a momentum averages signs of gradients."""
    if not isinstance(value, Tensor) or not value.dim() or not growth.grows(name):
        return copy.deepcopy(value)
    if key in _OF_PARAMETERS:
        return growth.value(name, value, moves.get(name))
    if key in _OF_STEPS:
        return growth.copied(name, value)
    return growth.gradient(name, value, torch.sign if signs and key == "momentum_buffer" else _OF_GRADIENTS[key])
