"""From a model to its channel graph, rehearsed before it is believed."""

from __future__ import annotations

from torch import nn

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.rehearsal.search import rehearsed_graph


def trace(model: nn.Module, example_inputs: object) -> ChannelGraph:
    """Run the model on example inputs and return its channel graph.

    The model is run in evaluation mode without gradients and left as it was; for the time of the run, parameters that
    are nearly zero hold random numbers. Nothing is guessed: channels that meet what the trace does not know are refused
    with the reason, and the rest of the network stays splittable. In the end a growth is rehearsed: some neurons of
    every group are split, and groups that change what the model computes (a width that is written as a number in its
    code, say) are refused too. A width that a module keeps in an attribute grows, if the rehearsal shows what it
    counts: in `torch.split(x, self.width, 1)`, in slices and in reshapes. What the code of a module does only in
    training mode is rehearsed likewise. Dropout is drawn for every copy on its own; other random numbers for every
    channel refuse it in evaluation mode.

    A module that was compiled by `torch.compile`, a `DataParallel` on one device, an `AveragedModel` or a model with
    adapters of PEFT is traced as it is; names begin with those of the wrapper, as its parameters' do. TorchScript gives
    an empty graph that says so.

    Parameters that are frozen (`requires_grad=False`, while others are trained) keep their values in all copies: the
    splitting matrices and the displacements are those of the other parameters. So nothing is gained by splitting a
    group that is frozen altogether, and `select` leaves it alone.

    Args:
        model: any module. Nothing in it needs to be prepared.
        example_inputs: a tensor, a tuple of positional or a mapping of keyword arguments, such as what a tokenizer
            returns. Costs are per sample: samples lie along the first dimension of inputs and outputs, or are the
            tensors of a list; where both have nothing in common, all is one sample. Random numbers, not zeros: they
            show whether the function stays the same.

    Raises:
        ModelError: the model is not on one device together with the inputs, or fails on them; it is a wrapper that
            must be taken off (`DistributedDataParallel`), or its weights are quantised.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
        >>> print(s3d.trace(model, torch.randn(3, 4)))
        group  width  followers  consumers  splittable
        0      8      1          3          yes
        3      2      -          -          no: it is an output of the network
    """
    return rehearsed_graph(model, example_inputs)
