"""Batch norm over the whole batch where several processes see a part of it each.

So a network is the same however many processes train it, and a run may go on with another number of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nni_s3d.tasks import ranks

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def whole_batch_norms(model: nn.Module) -> Iterator[None]:
    """Let the batch norms of PyTorch in a model, in training mode, take statistics over the batches of all processes.

    Those of a user's own class keep the statistics of their process.
    """
    kinds = _KINDS if ranks.world_size() > 1 else ()
    norms = [(norm, type(norm)) for norm in model.modules() if type(norm) in kinds]
    for norm, _ in norms:
        norm.__class__ = _WholeBatchNorm
        cast(_WholeBatchNorm, norm).process_group = None
    try:
        yield
    finally:
        for norm, kind in norms:
            norm.__class__ = kind
            del norm.process_group


class _WholeBatchNorm(nn.SyncBatchNorm):
    """PyTorch's batch norm over several processes, which it has for GPUs, on the processor too."""

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda or not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.dim())]
        count = input.new_tensor([input.numel() / input.shape[1]])
        sums: Tensor = _Sum.apply(torch.cat([input.sum(axes), count]))
        mean, n = sums[:-1] / sums[-1], float(sums[-1].detach())
        centred = input - mean.reshape(shape)
        variance: Tensor = _Sum.apply(centred.square().sum(axes)) / n
        self._keep(mean.detach(), variance.detach() * (n / (n - 1)))
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            return centred * (scale * self.weight).reshape(shape) + self.bias.reshape(shape)
        return centred * scale.reshape(shape)

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Bring the running statistics up to date; that of the variance is of the unbiased one."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Sum(torch.autograd.Function):
    """The sum over all processes; the derivative of the sum of their losses is one, too."""

    @staticmethod
    def forward(ctx: Any, of_process: Tensor) -> Tensor:
        total = of_process.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, derivative: Tensor) -> Tensor:
        return _Sum.forward(ctx, derivative)
