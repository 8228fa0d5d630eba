"""Read the channel graph of a model off one example run."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.calls import Call
from nni_s3d.growth.graph.channels import ChannelGraph, Operation
from nni_s3d.growth.graph.grouping import build_graph
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.tracer import Tracer
from nni_s3d.growth.modules import copied


@dataclass(frozen=True, eq=False)
class Run:
    """What one example run of a model tells."""

    notes: Notes
    outputs: list[Tensor]  # of the run in evaluation mode
    # Of the run in evaluation mode. None where a grown network may make the same ones though its channels do not lie as
    # the copies were put.
    calls: list[Call] | None


def read_graph(model: nn.Module, example_inputs: object) -> ChannelGraph:
    """Return the channel graph that the rules find in one example run; `trace` tries it out before it believes it.

    Modules that evaluation mode does not reach, such as auxiliary heads, are looked for in a run in training mode.

    Raises:
        ModelError: the model cannot be run on these inputs.
    """
    return build_graph(read_run(model, example_inputs).notes, example_inputs)


def read_run(model: nn.Module, example_inputs: object, channels_pass: bool | None = None) -> Run:
    """Return what a graph is built from, see `read_graph`, with outputs and calls.

    Args:
        model: any module.
        example_inputs: as for `trace`.
        channels_pass: see `rules.along_positions`; None for what lets more rows of weights grow.
    """
    run = _run(model, example_inputs, channels_pass is not False)
    if channels_pass is not None or not run.notes.could_pass:  # as a rule
        return run
    with torch.random.fork_rng():
        other = _run(model, example_inputs, channels_pass=False)
    more = _growing_rows(other, example_inputs) > _growing_rows(run, example_inputs)
    return replace(other, outputs=run.outputs) if more else run  # the same ones, but for random numbers


def _growing_rows(run: Run, example_inputs: object) -> int:
    """Return how many rows of weights the neurons have that can be split."""
    groups = build_graph(run.notes, example_inputs).splittable_groups
    return sum(group.width * len(group.producers) for group in groups)


def _run(model: nn.Module, example_inputs: object, channels_pass: bool) -> Run:
    tracer = Tracer(model, RULES, channels_pass)
    notes = tracer.run(example_inputs)
    if notes.unreached():
        # Where this fails too, the graph names what was not reached.
        with torch.random.fork_rng(), suppress(ModelError):
            again = Tracer(_as_if_training(model), RULES, channels_pass).run(example_inputs, training=True)
            if set(again.unreached()) < set(notes.unreached()):
                again.operations = _also_in(notes.operations, again.operations)
                again.averages.calls = notes.averages.calls
                return Run(again, notes.outputs, None)
    return Run(notes, notes.outputs, tracer.log.calls if notes.in_order else None)


def _also_in(evaluated: list[Operation], trained: list[Operation]) -> list[Operation]:
    """Return those operations of a run in training mode that evaluation needs too: costs are those of evaluation."""
    left = Counter(map(_work, evaluated))
    needed = []
    for operation in trained:
        if left[_work(operation)]:
            left[_work(operation)] -= 1
            needed.append(operation)
    return needed


def _work(operation: Operation) -> tuple[object, ...]:
    slots = None if operation.slots is None else operation.slots.numel()
    return operation.kind, operation.weight, operation.repeats, slots


def _as_if_training(model: nn.Module) -> nn.Module:
    """Return a copy whose modules believe that they are trained, but for those that would then do something else."""
    model = copied(model)
    for module in model.modules():
        changes = isinstance(module, (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd))
        module.training = not changes
    return model
