"""The optimizer of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nni_s3d.tasks.recipe import Recipe

T = TypeVar("T", bound=Optimizer)


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the optimizer of a recipe over the parameters of a model that are trained."""
    return _MAKERS[recipe.optimizer](_parameter_groups(model, recipe), recipe)


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Keep batch norm and biases, which have one dimension, from weight decay where asked."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.decay_norm_and_bias:
        return [{"params": parameters}]
    decayed: list[Tensor] = [p for p in parameters if p.dim() > 1]
    return [{"params": decayed}, {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}]


def _uncompiled(kind: type[T]) -> type[T]:
    """Return an optimizer of PyTorch without the hooks of its compiler, which takes a second to import."""
    methods = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: unwrap(getattr(kind, name)) for name in methods}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(unwrap(kind.step))})


_MAKERS: dict[str, Callable[[Any, Recipe], Optimizer]] = {
    "sgd": lambda groups, r: _uncompiled(torch.optim.SGD)(
        groups, lr=r.lr, momentum=r.momentum, nesterov=r.nesterov, weight_decay=r.weight_decay
    ),
    "adam": lambda groups, r: _uncompiled(torch.optim.Adam)(groups, lr=r.lr, weight_decay=r.weight_decay),
    "adamw": lambda groups, r: _uncompiled(torch.optim.AdamW)(groups, lr=r.lr, weight_decay=r.weight_decay),
}
