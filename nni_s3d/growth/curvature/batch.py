"""A batch of samples, and the loss of a model on it: splitting matrices are measured on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.modules import tensors

Batch = tuple[Any, Any]  # inputs, targets
LossFn = Callable[[Any, Any], Tensor]  # (outputs, targets) -> scalar, the mean over the batch


def samples_of(batch: Batch) -> int:
    """Count the samples of a batch."""
    return tensors(batch[0])[0].shape[0]


def dtype_of_products(dtype: torch.dtype) -> torch.dtype:
    """Return the type of products in a network of some type: single precision at least, as solvers need it."""
    return torch.promote_types(dtype, torch.float32)


def loss_scale(dtype: torch.dtype, samples: int) -> int:
    """Return what the mean loss is multiplied by: in half precision, a share of so many samples would underflow."""
    return samples if dtype == torch.float16 else 1


def scalar_loss(loss_fn: LossFn, outputs: object, targets: object) -> Tensor:
    """Return the mean loss over a batch.

    Raises:
        ModelError: the loss is no scalar.
    """
    loss = loss_fn(outputs, targets)
    if loss.dim():
        raise ModelError(f"loss_fn: expected a scalar, the mean over the batch, got shape {tuple(loss.shape)}")
    return loss
