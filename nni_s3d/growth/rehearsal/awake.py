"""Random values for parameters that are nearly zero, which would hide what follows them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_ASLEEP = 1e-3  # a parameter that is nowhere larger than this is drawn at random


def awake(model: nn.Module) -> dict[int, nn.Parameter]:
    """Return random values for the parameters that have hardly any effect, by their ids."""
    torch.manual_seed(0)
    asleep = [parameter for parameter in model.parameters() if _asleep(parameter.detach())]
    return {id(p): nn.Parameter(0.5 * torch.randn_like(p), requires_grad=p.requires_grad) for p in asleep}


def exchange(model: nn.Module, parameters: Mapping[int, nn.Parameter]) -> None:
    """Put parameters in the places of those with these ids, tied ones too."""
    plain = (module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule))
    for module in plain if parameters else ():
        for name, old in module._parameters.items():
            if id(old) in parameters:
                module._parameters[name] = parameters[id(old)]


def _asleep(parameter: Tensor) -> bool:
    if not parameter.is_floating_point() or not parameter.numel():
        return False
    if abs(parameter.flatten()[0].item()) >= _ASLEEP:  # settled by one look, as most are
        return False
    return float(parameter.abs().max()) < _ASLEEP
