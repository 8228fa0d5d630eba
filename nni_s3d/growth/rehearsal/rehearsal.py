"""Split some neurons without moving, see whether the outputs stay, and leave the model as it was.

No parameter is near zero in a rehearsal, which would hide what follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.graph.calls import Call, calls_and_outputs
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.grouping import build_graph
from nni_s3d.growth.graph.read import Run, read_run
from nni_s3d.growth.modules import call, copied, evaluation_mode, map_tensors, tensors
from nni_s3d.growth.rehearsal.growing_dims import growing_dims
from nni_s3d.growth.rehearsal.same_outputs import same_outputs
from nni_s3d.growth.rehearsal.stand_ins import StandIns
from nni_s3d.growth.selection.schemes import scheme
from nni_s3d.growth.selection.settings import COPIES
from nni_s3d.growth.surgery.axis_growth import AxisGrowth, NewChannels, slots_in_place
from nni_s3d.growth.surgery.grown_graph import build_grown_graph, is_as_expected, read_grown_run
from nni_s3d.growth.surgery.grown_values import grown_values
from nni_s3d.growth.surgery.install import install, modules_restored

DIFFERENT = "the model computes something else when it grows"
_C = 2.0  # the weights of copies are unequal at this c, so that no two may be mistaken for each other
_ASLEEP = 1e-3  # a parameter that is nowhere larger than this is drawn at random
_STRICT = 3e-5  # the relative difference that a strict rehearsal takes for rounding


@dataclass(frozen=True)
class Rehearsal:
    """A model to rehearse a growth in, and what it computes before."""

    model: nn.Module
    inputs: object
    expected: list[Tensor] | None  # its outputs; None if it draws random numbers, so that there is nothing to compare
    awake: Mapping[int, nn.Parameter] = field(default_factory=dict)  # in the places of parameters, by their ids
    calls: Sequence[Call] | None = None  # of the run before; where the same calls say nothing, None
    strict: bool = False  # whether to take small differences for real ones

    @classmethod
    def in_place(cls, model: nn.Module, inputs: object) -> tuple[ChannelGraph, Rehearsal]:
        """Return the graph of a model, and a rehearsal in the model itself; both come from the same run of it."""
        awake: dict[int, nn.Parameter] = {}
        try:
            awake = _awake(model)
            run = _read(model, inputs, awake)
        except Exception:  # code that wants other values, or the model fails anyway: then it is to say so
            awake = {}
            run = _read(model, inputs, awake)
        graph = build_graph(run.notes, inputs)
        if dims := growing_dims(model, graph, run.notes):
            graph = build_graph(run.notes, inputs, dims)
        if awake and run.notes.sizes_of_values:
            graph = _with_costs(graph, build_graph(_read(model, inputs, {}).notes, inputs))
        # The labels of a single channel do not say along which dimension it runs; those of its copies do.
        calls = None if any(group.width == 1 for group in graph) else run.calls
        return graph, cls(model, inputs, run.outputs, awake, calls, strict=True)

    @classmethod
    def in_float64(cls, model: nn.Module, inputs: object) -> Rehearsal:
        """Return a rehearsal in a copy in double precision if that runs, else in the model as it is."""
        try:
            double = copied(model).double()
            _exchange(double, _awake(double))
            rehearsal = cls._with_fixed_outputs(double, map_tensors(_doubled, inputs))
        except Exception:  # code that wants another precision, say
            return cls._with_fixed_outputs(model, inputs)
        finite = all(bool(output.isfinite().all()) for output in rehearsal.expected or ())
        return rehearsal if finite else cls._with_fixed_outputs(model, inputs)

    @classmethod
    def _with_fixed_outputs(cls, model: nn.Module, inputs: object) -> Rehearsal:
        outputs, again = (_outputs(model, inputs, seed) for seed in (0, 1))
        fixed = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(outputs, again, strict=True))
        return cls(model, inputs, outputs if fixed else None)

    def trouble(self, graph: ChannelGraph, copies: Tensor) -> str:
        """Return what happens when channels have these copies (channels,); nothing if all is well."""
        try:
            with modules_restored(self.model):
                _exchange(self.model, self.awake)
                outputs = self._grown_outputs(graph, _unmoved(copies))
        except ModelError as error:
            return str(error)
        except Exception as error:
            return f"the model fails when it grows: {first_line(error)}"
        same = self.expected is None or same_outputs(outputs, self.expected, _STRICT if self.strict else 1.0)
        return "" if same else DIFFERENT

    def _grown_outputs(self, graph: ChannelGraph, new: NewChannels) -> list[Tensor]:
        before = {n: x.detach() for n, x in (*self.model.named_parameters(), *self.model.named_buffers())}
        growth = AxisGrowth(graph, new, slots_in_place(graph, new.copies))
        if self.calls is not None:
            stand_ins = StandIns(growth, before, self.calls)
            others = {name: tensor for name, tensor in before.items() if name not in stand_ins.tensors}
            install(self.model, grown_values(graph, growth, others) | stand_ins.tensors, graph.layers)
            torch.manual_seed(0)
            calls, outputs = calls_and_outputs(self.model, self.inputs, stand_ins.write)
            if calls == self.calls:
                return outputs
        install(self.model, grown_values(graph, growth, before), graph.layers)
        torch.manual_seed(0)
        run = read_grown_run(self.model, self.inputs)
        if is_as_expected(run.notes, graph, new.copies, growth.slots):
            return run.outputs
        widths = {group.name: int(new.copies[group.channels].sum()) for group in graph}
        slots = [axis.slots for axis in build_grown_graph(run.notes, self.inputs, graph, widths).axes()]
        if all(map(torch.equal, slots, growth.slots)):
            return run.outputs
        # A shuffle lies between a neuron and its readers.
        install(self.model, grown_values(graph, AxisGrowth(graph, new, slots), before), graph.layers)
        return _outputs(self.model, self.inputs)


def _read(model: nn.Module, inputs: object, awake: Mapping[int, nn.Parameter]) -> Run:
    """Return what a run of a model tells, with some parameters exchanged."""
    with modules_restored(model):
        _exchange(model, awake)
        torch.manual_seed(0)
        return read_run(model, inputs)


def _with_costs(graph: ChannelGraph, other: ChannelGraph) -> ChannelGraph:
    """Return a graph with the costs of another one of the same model, if both runs came to the same layers."""
    same = len(graph.layers) == len(other.layers) and all(
        axis.tensor == its.tensor and torch.equal(axis.slots, its.slots)
        for axis, its in zip(graph.axes(), other.axes(), strict=False)
    )
    return replace(graph, operations=other.operations, uncounted=other.uncounted) if same else graph


def _awake(model: nn.Module) -> dict[int, nn.Parameter]:
    """Return random values for the parameters that have hardly any effect."""
    torch.manual_seed(0)
    asleep = [parameter for parameter in model.parameters() if _asleep(parameter.detach())]
    return {id(p): nn.Parameter(0.5 * torch.randn_like(p), requires_grad=p.requires_grad) for p in asleep}


def _exchange(model: nn.Module, parameters: Mapping[int, nn.Parameter]) -> None:
    """Put parameters in the places of those with these ids, tied ones too."""
    for module in model.modules():
        for name, old in module._parameters.items():
            if id(old) in parameters:
                module._parameters[name] = parameters[id(old)]


def _asleep(parameter: Tensor) -> bool:
    if not parameter.is_floating_point() or not parameter.numel():
        return False
    if abs(parameter.flatten()[0].item()) >= _ASLEEP:  # settled by one look, as most are
        return False
    return float(parameter.abs().max()) < _ASLEEP


def _unmoved(copies: Tensor) -> NewChannels:
    """Return the new channels of neurons whose copies do not move."""
    parent, weights = copies.repeat_interleave(copies), torch.ones(int(copies.sum()), dtype=torch.float64)
    for m in COPIES:
        still = torch.zeros(int((copies == m).sum()), dtype=torch.float64)
        weights[parent == m] = scheme(still, still, m, _C).weights.flatten()
    return NewChannels(copies, weights, torch.ones_like(weights))


def _outputs(model: nn.Module, inputs: object, seed: int = 0) -> list[Tensor]:
    with evaluation_mode(model):
        torch.manual_seed(seed)
        return tensors(call(model, inputs))


def _doubled(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
