"""What the functions of PyTorch are called, and which of them are linear or drop."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.overrides import resolve_name

LINEAR = tuple(  # functions of (input, weight, bias, ...) that can produce channels
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split()
)
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")


def batch_norm_arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a batch norm behind the input, by name; the two functions for it order them otherwise."""
    names = ["weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled"]
    if func is not torch.batch_norm:
        names = ["running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"]
    given = dict(zip(names, args, strict=False)) | kwargs
    return {"weight": None, "bias": None, "training": False, "eps": 1e-5} | given


@lru_cache(maxsize=4096)  # looking a name up takes longer than many a function
def canonical_name(func: Callable[..., Any]) -> str:
    """Return a function's name without its module, in-place underscores and operator dunders."""
    name = (resolve_name(func) or getattr(func, "__name__", repr(func))).removesuffix(".__get__")
    return str(name).rpartition(".")[2].strip("_")
