"""Refuse models and calls that would silently give other splitting matrices."""

from __future__ import annotations

from typing import Any

from torch import nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.functions import DROPOUTS


def check_model(model: nn.Module, graph: ChannelGraph) -> None:
    """Refuse a model whose splitting matrices the graph does not describe.

    Raises:
        ModelError: a layer that draws random numbers or batch norm is in training mode, which makes S that of another,
            random function; the model is not the one that was traced; nothing in it can be split.
    """
    for name, module in model.named_modules():
        draws = isinstance(module, nn.RReLU) or (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
        if module.training and (draws or isinstance(module, nn.modules.batchnorm._BatchNorm)):
            kind = type(module).__name__
            raise ModelError(f"{name}: expected evaluation mode, got a {kind} in training mode; call model.eval()")
    graph.check(model)
    if not graph.splittable_groups:
        raise ModelError("graph: expected at least one splittable group, got none; print(graph) gives the reasons")


def check_deterministic(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse dropout that is called as a function and draws a mask, whatever mode the model is in.

    Raises:
        ModelError: the call drops.
    """
    if name in DROPOUTS:
        named = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
        active = named.get("training", named.get("train", not name.endswith("alpha_dropout")))
        if active and named.get("p", 0.5) > 0:
            raise ModelError(
                f"{name}: expected training=False during curvature, got a call that drops; pass training=self.training"
            )
