"""Splitting matrices of every neuron at once, by cutting the network at its consumers.

Let z_c be the input of consumer c and g_c the derivative of the loss with respect to z_c as c reads it. With g held
fixed and the network cut at every consumer, S_i (eq. 2 of the paper) is the Hessian with respect to theta_i of
h = sum_c <g_c, z_c>, and no two neurons share a term of h. A producer is linear in its parameters, u = X theta, so

    S v = X' H (X v),    H = Hessian of h with respect to u,

which costs one convolution with v as the filters, a product with H through channel-wise functions, and one weight
gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.curvature.batch import Batch, LossFn, samples_of
from nni_s3d.growth.curvature.batch_operator import BatchOperator, RecomputedBatchOperator, shapes_of
from nni_s3d.growth.curvature.mean_operator import MeanOperator
from nni_s3d.growth.curvature.preconditions import check_model
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from nni_s3d.growth.graph.channels import ChannelGraph


class SplittingOperator(MeanOperator):
    """v -> S v for every neuron of every splittable group, S the splitting matrix (eq. 2) averaged over all samples.

    Examples:
        >>> import torch
        >>> import nni_s3d as s3d
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> batch = torch.randn(32, 4), torch.randint(3, (32,))
        >>> graph = s3d.trace(model, batch[0])
        >>> op = s3d.SplittingOperator(model, graph, [batch], torch.nn.functional.cross_entropy)
        >>> op.shapes  # one group of 8 neurons, each with 4 weights and a bias
        {'0': (8, 5)}
        >>> op.matvec({"0": torch.randn(8, 5)})["0"].shape
        torch.Size([8, 5])
        >>> op.dense("0").shape
        torch.Size([8, 5, 5])

    Args:
        model: the network, in evaluation mode; it must stay as it is as long as the operator is in use.
        graph: its channel graph, from `trace`.
        batches: pairs (inputs, targets); the first dimension of the first input counts the samples. Samples in random
            order: `folds`, which are held out one after another, are batches that follow each other.
        loss_fn: loss_fn(model(inputs), targets) -> scalar, the mean loss over the batch.
        smoothing: sharpness beta of the softplus whose second derivative stands in for that of piecewise-linear
            activations. Smooth activations stay exact.
        memory: bytes that batches may take up that have been linearised, about; those beyond are linearised anew for
            every product, with the same result. None keeps all of them.

    Attributes:
        parts: one operator per batch; this operator is their mean, weighted by their samples.
        folds: at most `held_out.FOLDS` operators over disjoint samples, of which it is the mean too.
        samples: number of samples of all batches together.
        shapes: {group: (width, d)}, the shapes of the vectors that the operator takes.

    Raises:
        ModelError: the model is not the one that was traced, a layer of it is in training mode (batch norm, dropout), a
            batch is on another device, nothing can be split, or there is no batch.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        batches: Iterable[Batch],
        loss_fn: LossFn,
        smoothing: float = 3.0,
        memory: float | None = None,
    ) -> None:
        check_model(model, graph)
        zeros, left = ZeroBuffer(), float("inf") if memory is None else memory
        parts: list[BatchOperator | RecomputedBatchOperator] = []
        first: BatchOperator | None = None
        for batch in batches:
            linearize = partial(BatchOperator, model, graph, batch, loss_fn, smoothing=smoothing, zeros=zeros)
            if first is None or left > 0:
                part = linearize()
                first, left = first or part, left - part.nbytes
            parts.append(part if left > 0 else RecomputedBatchOperator(linearize, samples_of(batch)))
        if first is None:
            raise ModelError("batches: expected at least one batch, got none")
        super().__init__(parts, shapes_of(graph), first.dtype, first.device)
