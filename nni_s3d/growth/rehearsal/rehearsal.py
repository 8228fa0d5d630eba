"""Split some neurons without moving, see whether the outputs stay, and leave the model as it was.

No parameter is near zero in a rehearsal, which would hide what follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.graph.calls import Call, calls_and_outputs
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.grouping import build_graph
from nni_s3d.growth.graph.read import Run, read_run
from nni_s3d.growth.modules import call, evaluation_mode, modules_restored, tensors
from nni_s3d.growth.rehearsal.awake import awake, exchange
from nni_s3d.growth.rehearsal.blame import Failure
from nni_s3d.growth.rehearsal.careful import Careful
from nni_s3d.growth.rehearsal.growing_dims import growing_dims
from nni_s3d.growth.rehearsal.reasons import DIFFERENT, FAILS
from nni_s3d.growth.rehearsal.same_outputs import STRICT, same_outputs
from nni_s3d.growth.rehearsal.stand_ins import StandIns
from nni_s3d.growth.rehearsal.training import asks_for_training, outputs_in_training
from nni_s3d.growth.selection.schemes import scheme_of
from nni_s3d.growth.selection.settings import COPIES, SchemeSettings
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.grown_graph import build_grown_graph, is_as_expected, read_grown_run
from nni_s3d.growth.surgery.grown_values import grown_values
from nni_s3d.growth.surgery.install import install
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place

_SETTINGS = SchemeSettings(c=2.0)  # so that weights are unequal, and no two copies may be mistaken for each other


class Rehearsal:
    """A model to rehearse a growth in, and what it computes before.

    Args:
        model: which is left as it was.
        inputs: what it is run on.
        graph: its channel graph.
        parameters: to put into the places of others, see `exchange`.
        expected: its outputs.
        calls: of the run before; where the same calls say nothing, None.
        training: whether it runs as if it were trained.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: object,
        graph: ChannelGraph,
        parameters: Mapping[int, nn.Parameter],
        expected: Sequence[Tensor],
        calls: Sequence[Call] | None,
        training: bool = False,
    ) -> None:
        self.model, self.inputs, self.graph, self.parameters = model, inputs, graph, parameters
        self._expected, self._calls, self._training = expected, calls, training

    @property
    def reorders(self) -> bool:
        """Whether some function may change the order of channels."""
        return self._calls is None

    @classmethod
    def in_place(cls, model: nn.Module, inputs: object) -> Rehearsal:
        """Return a rehearsal in evaluation mode; its graph comes from the same run of the model."""
        parameters: dict[int, nn.Parameter] = {}
        try:
            parameters = awake(model)
            run = _read(model, inputs, parameters)
        except Exception:  # code that wants other values, or the model fails anyway: then it is to say so
            parameters = {}
            run = _read(model, inputs, parameters)
        graph = build_graph(run.notes, inputs)
        if dims := growing_dims(model, graph, run.notes):
            graph = build_graph(run.notes, inputs, dims)
        if parameters and run.notes.sizes_of_values:
            graph = _with_costs(graph, build_graph(_read(model, inputs, {}, graph.channels_pass).notes, inputs))
        # The labels of a single channel do not say along which dimension it runs; those of its copies do.
        calls = None if any(group.width == 1 for group in graph) else run.calls
        return cls(model, inputs, graph, parameters, run.outputs, calls)

    def as_if_training(self) -> Rehearsal | None:
        """Return a rehearsal of what the model does when it is trained; None if that is nothing else, or fails."""
        if not asks_for_training(self.model):
            return None
        try:
            with modules_restored(self.model):
                exchange(self.model, self.parameters)
                expected = outputs_in_training(self.model, self.inputs)
        except Exception:  # it wants targets, say
            return None
        return Rehearsal(self.model, self.inputs, self.graph, self.parameters, expected, None, training=True)

    def failures(self, graph: ChannelGraph, copies: Tensor) -> list[Failure]:
        """Return the places that fail when channels have these copies; none if all is well.

        Args:
            graph: in which only the groups are splittable that grow.
            copies: (channels,) of every channel.
        """
        new = _unmoved(graph, copies)
        trouble = self._trouble(graph, new)
        if not trouble:
            return []
        found = self._in_its_precision.failures(graph, new)
        # A number may differ by a rounding that one function has magnified.
        if any(failure.by_rounding for failure in found) and self._in_float64 is not None:
            found = self._in_float64.failures(graph, new)
        if not found and trouble != DIFFERENT:
            return [Failure(-1, trouble)]
        return found

    @cached_property
    def _in_its_precision(self) -> Careful:
        return Careful(self.model, self.inputs, self.graph, self.parameters, self._training)

    @cached_property
    def _in_float64(self) -> Careful | None:
        return Careful.in_float64(self.model, self.inputs, self.graph, self._training)

    def _trouble(self, graph: ChannelGraph, new: NewChannels) -> str:
        """Return what happens when channels become these, as far as a quick look tells."""
        try:
            with modules_restored(self.model):
                exchange(self.model, self.parameters)
                outputs = self._outputs_in_training(graph, new) if self._training else self._outputs(graph, new)
        except ModelError as error:
            return str(error)
        except Exception as error:
            return f"{FAILS}: {first_line(error)}"
        return "" if same_outputs(outputs, self._expected, STRICT) else DIFFERENT

    def _outputs_in_training(self, graph: ChannelGraph, new: NewChannels) -> list[Tensor]:
        before = {n: x.detach() for n, x in (*self.model.named_parameters(), *self.model.named_buffers())}
        growth = AxisGrowth(graph, new, slots_in_place(graph, new.copies))
        install(self.model, grown_values(graph, growth, before), graph.layers, growth.attributes)
        return outputs_in_training(self.model, self.inputs)

    def _outputs(self, graph: ChannelGraph, new: NewChannels) -> list[Tensor]:
        before = {n: x.detach() for n, x in (*self.model.named_parameters(), *self.model.named_buffers())}
        growth = AxisGrowth(graph, new, slots_in_place(graph, new.copies))
        if self._calls is not None:
            stand_ins = StandIns(growth, before, self._calls)
            others = {name: tensor for name, tensor in before.items() if name not in stand_ins.tensors}
            values = grown_values(graph, growth, others) | stand_ins.tensors
            install(self.model, values, graph.layers, growth.attributes)
            torch.manual_seed(0)
            calls, outputs = calls_and_outputs(self.model, self.inputs, stand_ins.write)
            if calls == self._calls:
                return outputs
        install(self.model, grown_values(graph, growth, before), graph.layers, growth.attributes)
        torch.manual_seed(0)
        run = read_grown_run(self.model, self.inputs, graph)
        if is_as_expected(run.notes, graph, new.copies, growth.slots):
            return run.outputs
        slots = [axis.slots for axis in build_grown_graph(run.notes, self.inputs, graph, new.copies).axes()]
        if all(map(torch.equal, slots, growth.slots)):
            return run.outputs
        # A shuffle lies between a neuron and its readers.
        growth = AxisGrowth(graph, new, slots)
        install(self.model, grown_values(graph, growth, before), graph.layers, growth.attributes)
        return _plain_outputs(self.model, self.inputs)


def _read(
    model: nn.Module, inputs: object, parameters: Mapping[int, nn.Parameter], channels_pass: bool | None = None
) -> Run:
    """Return what a run of a model tells, with some parameters exchanged."""
    with modules_restored(model):
        exchange(model, parameters)
        torch.manual_seed(0)
        return read_run(model, inputs, channels_pass)


def _with_costs(graph: ChannelGraph, other: ChannelGraph) -> ChannelGraph:
    """Return a graph with the costs of another one of the same model, if both runs came to the same layers."""
    same = len(graph.layers) == len(other.layers) and all(
        axis.tensor == its.tensor and torch.equal(axis.slots, its.slots)
        for axis, its in zip(graph.axes(), other.axes(), strict=False)
    )
    return replace(graph, operations=other.operations, uncounted=other.uncounted) if same else graph


def _unmoved(graph: ChannelGraph, copies: Tensor) -> NewChannels:
    """Return the new channels of neurons whose copies do not move; those of averaged ones have equal weights."""
    parent, weights = copies.repeat_interleave(copies), torch.ones(int(copies.sum()), dtype=torch.float64)
    for m in COPIES:
        channels = copies == m
        still = torch.zeros(int(channels.sum()), dtype=torch.float64)
        weights[parent == m] = scheme_of(still, still, m, _SETTINGS, graph.averaged[channels]).weights.flatten()
    return NewChannels(copies, weights, torch.ones_like(weights))


def _plain_outputs(model: nn.Module, inputs: object) -> list[Tensor]:
    with evaluation_mode(model):
        torch.manual_seed(0)
        return tensors(call(model, inputs))
