"""Carry an optimizer's state through a split."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.surgery.axis_growth import AxisGrowth

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


def grown_state(model: nn.Module, optimizer: torch.optim.Optimizer, growth: AxisGrowth) -> dict[str, Any]:
    """Return the optimizer's state dict with every buffer grown like its parameter's gradient."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ordered = [parameter for settings in optimizer.param_groups for parameter in settings["params"]]
    if any(id(parameter) not in names for parameter in ordered):
        raise ModelError("optimizer: expected one over the parameters of the model that is split, got one over others")
    state = optimizer.state_dict()
    grown = {}
    for place, buffers in state["state"].items():
        parameter = ordered[place]
        name = names[id(parameter)]
        powers = _POWERS | ({"momentum_buffer": 0} if "square_avg" in buffers else {})  # RMSprop's averages g / |g|
        grown[place] = {
            key: _grown_buffer(name, parameter, key, value, growth, powers) for key, value in buffers.items()
        }
    return {**copy.deepcopy({key: value for key, value in state.items() if key != "state"}), "state": grown}


def _grown_buffer(
    name: str, parameter: Tensor, key: str, value: Any, growth: AxisGrowth, powers: dict[str, int]
) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape or not growth.grows(name):
        return copy.deepcopy(value)
    if key not in powers:
        raise ModelError(
            f"optimizer: expected buffers among {', '.join(powers)}, got {key!r} for {name}; start a new one"
        )
    return growth.gradient(name, value, powers[key])
