"""Look for the places where a grown network fails, in the model itself or in a copy in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.labels import NONE
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.tracer import Tracer
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from nni_s3d.growth.modules import copied, map_tensors, modules_restored
from nni_s3d.growth.rehearsal.awake import awake, exchange
from nni_s3d.growth.rehearsal.blame import Failure
from nni_s3d.growth.rehearsal.counted import counted_attributes
from nni_s3d.growth.rehearsal.marked import Source, mark_attributes, marks
from nni_s3d.growth.rehearsal.reasons import DIFFERENT
from nni_s3d.growth.rehearsal.record import Recorder, rows_of
from nni_s3d.growth.rehearsal.same_outputs import STRICT, same_outputs
from nni_s3d.growth.rehearsal.side_by_side import SideBySide
from nni_s3d.growth.rehearsal.training import as_if_training
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.grown_values import grown_values
from nni_s3d.growth.surgery.install import install
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place

_TURNS = 3  # more than one where shuffles lie between neurons and their readers


class Careful:
    """Looks for the places where a grown network fails.

    Args:
        model: in which the growth takes place, and which is left as it was.
        inputs: what it is run on.
        graph: its channel graph.
        parameters: to put into the places of others, see `exchange`.
        training: whether it runs as if it were trained.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: object,
        graph: ChannelGraph,
        parameters: Mapping[int, nn.Parameter],
        training: bool,
    ) -> None:
        self._model, self._inputs, self._graph = model, inputs, graph
        self._parameters, self._training = parameters, training
        self._values: dict[Source, int] = {}  # of attributes that are marked in the record

    @classmethod
    def in_float64(cls, model: nn.Module, inputs: object, graph: ChannelGraph, training: bool) -> Careful | None:
        """Return one in a copy in double precision; None if the model does not run in it."""
        try:
            double = copied(model).double()
            exchange(double, awake(double))
            careful = cls(double, map_tensors(_doubled, inputs), graph, {}, training)
            outputs = careful.record.notes.outputs
        except Exception:  # code that wants another precision, say
            return None
        return careful if all(bool(output.isfinite().all()) for output in outputs) else None

    @cached_property
    def record(self) -> Recorder:
        """What the calls of the network return before it grows."""
        try:
            return self._recorded(marked=True)
        except Exception:  # code that wants plain integers
            return self._recorded(marked=False)

    def _recorded(self, marked: bool) -> Recorder:
        with modules_restored(self._model):
            exchange(self._model, self._parameters)
            self._values = mark_attributes(self._model) if marked else {}
            recorder = Recorder(self._model, self._graph)
            self._run(recorder)
        return recorder

    @cached_property
    def _attributes(self) -> dict[Source, WidthAttribute]:
        return counted_attributes(self.record.places, self._values, self._graph.growing_dims)

    def _with_attributes(self, failure: Failure) -> Failure:
        """Return a failure with the attributes that its place takes widths from."""
        if not 0 <= failure.place < len(self.record.places):
            return failure
        given = marks(self.record.places[failure.place].arguments)
        sources = dict.fromkeys(source for number in given for source in number.ratios)
        return replace(failure, attributes=tuple(self._attributes[s] for s in sources if s in self._attributes))

    def failures(self, graph: ChannelGraph, new: NewChannels) -> list[Failure]:
        """Return the places that fail when the network has these channels.

        Args:
            graph: in which only the groups are splittable that grow.
            new: the channels.
        """
        record = self.record
        slots: Sequence[Tensor] = slots_in_place(graph, new.copies)
        with modules_restored(self._model):
            exchange(self._model, self._parameters)
            before = {n: x.detach() for n, x in (*self._model.named_parameters(), *self._model.named_buffers())}
            # Products take the weights of copies themselves, so that what enters them can be compared.
            for _ in range(_TURNS):
                growth = AxisGrowth(graph, new, slots, carries=False)
                install(self._model, grown_values(graph, growth, before), graph.layers, growth.attributes)
                beside = SideBySide(self._model, graph, new, rows_of(graph, slots), record, self._training)
                found = self._run(beside)
                moved = _as_joined(beside.notes, graph, slots) if found else slots
                if moved is slots:
                    break
                slots = moved
            if not found and any(axis.carries is not None for axis in graph.axes()):
                growth = AxisGrowth(graph, new, slots)
                install(self._model, grown_values(graph, growth, before), graph.layers, growth.attributes)
                found = self._failure_of_outputs()
        return list(map(self._with_attributes, found))

    def _failure_of_outputs(self) -> list[Failure]:
        """Return what is to be said if the network, as it is now, does not put out what it has put out before."""
        now = Tracer(self._model, RULES)
        self._run(now)
        stays = same_outputs(now.notes.outputs, self.record.notes.outputs, STRICT)
        return [] if stays else [Failure(-1, DIFFERENT, by_rounding=True)]

    def _run(self, tracer: Tracer) -> list[Failure]:
        torch.manual_seed(0)
        with as_if_training(self._model) if self._training else nullcontext():
            if isinstance(tracer, SideBySide):
                return tracer.failures(self._inputs)
            tracer.run(self._inputs, self._training)
            return []


def _as_joined(notes: Notes, graph: ChannelGraph, slots: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the slots of all axes where the channels that a run has found to be one have one number.

    Where rows meet channels that a shuffle has moved, their copies must lie as those do. The slots are returned as they
    are if they lie so already, or cannot.
    """
    roots, number, moved = notes.same.roots(), np.full(len(notes.same.roots()), NONE), []
    met = {(axis.tensor, axis.dim): axis.slots.numpy() for layer in notes.layers for axis in layer.axes}
    for key, rows in rows_of(graph, slots).items():
        if key in met and len(met[key]) == len(rows):
            root = roots[met[key]]
            fresh = number[root] == NONE
            number[root[fresh]] = rows.numpy()[fresh]
    for axis, now in zip(graph.axes(), slots, strict=True):
        labels = met.get((axis.tensor, axis.dim))
        if labels is None or len(labels) != len(now):
            moved.append(now)
            continue
        joined = np.where(labels >= 0, number[roots[labels]], NONE)
        if (np.sort(joined) != np.sort(now.numpy())).any():
            return slots
        moved.append(torch.from_numpy(joined))
    return slots if all(map(torch.equal, moved, slots)) else moved


def _doubled(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
