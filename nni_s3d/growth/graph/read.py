"""Read the channel graph of a model off one example run."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.grouping import build_graph
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.tracer import Tracer
from nni_s3d.growth.modules import copied


def read_graph(model: nn.Module, example_inputs: object) -> ChannelGraph:
    """Return the channel graph that the rules find in one example run; `trace` tries it out before it believes it.

    Modules that evaluation mode does not reach, such as auxiliary heads, are looked for in a run in training mode.

    Raises:
        ModelError: the model cannot be run on these inputs.
    """
    return read_graph_and_outputs(model, example_inputs)[0]


def read_graph_and_outputs(model: nn.Module, example_inputs: object) -> tuple[ChannelGraph, list[Tensor]]:
    """Return the channel graph, see `read_graph`, and the tensors that the run in evaluation mode put out."""
    notes, outputs = read_notes(model, example_inputs)
    return build_graph(notes, example_inputs), outputs


def read_notes(model: nn.Module, example_inputs: object) -> tuple[Notes, list[Tensor]]:
    """Return what a graph is built from, see `read_graph`, and the tensors that the run in evaluation mode put out."""
    notes = Tracer(model, RULES).run(example_inputs)
    outputs = notes.outputs
    if notes.unreached():
        # Where this fails too, the graph names what was not reached.
        with torch.random.fork_rng(), suppress(ModelError):
            again = Tracer(_as_if_training(model), RULES).run(example_inputs, training=True)
            if set(again.unreached()) < set(notes.unreached()):
                notes = again
    return notes, outputs


def _as_if_training(model: nn.Module) -> nn.Module:
    """Return a copy whose modules believe that they are trained, but for those that would then do something else."""
    model = copied(model)
    for module in model.modules():
        changes = isinstance(module, (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd))
        module.training = not changes
    return model
