"""Rehearse a growth: refuse the groups whose growth would change what the network computes, whatever the rules say.

A model may hold a width as a number: a reshape to fixed sizes, a division by the number of channels, a check. No rule
sees that; so some neurons of every group are split without moving, and the outputs compared. No parameter is near zero
in a rehearsal, which would hide what follows it.

The first rehearsal is quick: it takes place in the model itself, in its own precision, and every module has its own
tensors back afterwards. Where outputs differ, a copy in double precision decides whether that was more than rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.read import read_graph_and_outputs
from nni_s3d.growth.graph.union_find import UnionFind
from nni_s3d.growth.modules import call, copied, evaluation_mode, tensors, untouched_random_state
from nni_s3d.growth.rehearsal_pattern import rehearsed_copies
from nni_s3d.growth.selection.schemes import COPIES, scheme
from nni_s3d.growth.surgery.axis_growth import AxisGrowth, NewChannels, slots_in_place
from nni_s3d.growth.surgery.grown_graph import read_grown_graph
from nni_s3d.growth.surgery.install import install, modules_restored

_C = 2.0  # the weights of copies are unequal at this c, so that no two may be mistaken for each other
_ASLEEP = 1e-3  # a parameter that is nowhere larger than this is drawn at random
_STRICT = 3e-5  # the relative difference that a quick rehearsal takes for rounding
_DIFFERENT = "the model computes something else when it grows"


def rehearsed_graph(model: nn.Module, example_inputs: object) -> ChannelGraph:
    """Return the channel graph of a model, which is left as it is; groups that cannot grow in it are refused.

    Raises:
        ModelError: as `trace`.
    """
    with torch.no_grad(), untouched_random_state():
        graph, quick = _Rehearsal.in_place(model, example_inputs)
        if not graph.splittable_groups:
            return graph
        search = _Search(graph, quick)
        search.run(graph.splittable_groups)
    groups = (replace(group, reason=group.reason or search.refused.get(group.name, "")) for group in graph)
    return replace(graph, groups=tuple(groups))


@dataclass
class _Search:
    """Looks for the groups that cannot grow together with those that are fine."""

    graph: ChannelGraph
    quick: _Rehearsal
    fine: list[ChannelGroup] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # {group: reason}
    _careful: _Rehearsal | None = None

    def run(self, suspects: Sequence[ChannelGroup]) -> None:
        """Divide the suspects until those are found that fail together with the groups that are fine."""
        trouble = self._trouble([*self.fine, *suspects])
        if not trouble:
            self.fine.extend(suspects)
        elif len(suspects) == 1:
            self.refused[suspects[0].name] = trouble
        else:
            for part in self._divided(suspects):
                self.run(part)

    def _trouble(self, groups: Sequence[ChannelGroup]) -> str:
        """Return what happens when some neurons of these groups, and no others, are split; nothing if all is well."""
        part = self.graph.refuse_others({group.name for group in groups}, "it is left alone")
        try:
            copies = rehearsed_copies(part, groups)
        except ModelError as error:
            return str(error)
        trouble = self.quick.trouble(part, copies)
        if trouble == _DIFFERENT:
            self._careful = self._careful or _Rehearsal.in_float64(self.quick.model, self.graph.example_inputs)
            trouble = self._careful.trouble(part, copies)
        return trouble

    def _divided(self, suspects: Sequence[ChannelGroup]) -> Iterator[Sequence[ChannelGroup]]:
        """Yield the groups that nothing cuts into parts, then those whose parts meet; halves if all are of one kind."""
        same = UnionFind()
        same.fresh(self.graph.num_channels)
        for group in suspects:
            same.union(torch.full((group.width,), group.first), torch.arange(group.first, group.first + group.width))
        cut = torch.zeros(self.graph.num_channels, dtype=torch.bool)
        for where in self.graph.equal_parts:
            channels = where.parts[where.parts >= 0]
            cut[channels] = True
            same.union(channels[:1].expand_as(channels), channels)
        clusters: dict[int, list[ChannelGroup]] = {}
        for group in suspects:
            clusters.setdefault(same.find(group.first) if cut[group.channels].any() else -1, []).append(group)
        if len(clusters) == 1:
            half = len(suspects) // 2
            yield from (suspects[:half], suspects[half:])
        else:
            yield from sorted(clusters.values(), key=lambda groups: -1 in clusters and groups is not clusters[-1])


@dataclass(frozen=True)
class _Rehearsal:
    """A model to try a growth in, and what it computes before."""

    model: nn.Module
    inputs: object
    expected: list[Tensor] | None  # its outputs; None if it draws random numbers, so that there is nothing to compare
    awake: Mapping[int, nn.Parameter] = field(default_factory=dict)  # in the places of parameters, by their ids
    strict: bool = False  # whether to take small differences for real ones

    @classmethod
    def in_place(cls, model: nn.Module, inputs: object) -> tuple[ChannelGraph, _Rehearsal]:
        """Return the graph of a model, and a rehearsal in the model itself; both come from the same run of it."""
        awake: dict[int, nn.Parameter] = {}
        try:
            awake = _awake(model)
            graph, expected = _read(model, inputs, awake)
        except Exception:  # code that wants other values, or the model fails anyway: then it is to say so
            awake = {}
            graph, expected = _read(model, inputs, awake)
        return graph, cls(model, inputs, expected, awake, strict=True)

    @classmethod
    def in_float64(cls, model: nn.Module, inputs: object) -> _Rehearsal:
        """Return a rehearsal in a copy in double precision if that runs, else in the model as it is."""
        try:
            double = copied(model).double()
            _exchange(double, _awake(double))
            rehearsal = cls._with_fixed_outputs(double, pytree.tree_map_only(Tensor, _doubled, inputs))
        except Exception:  # code that wants another precision, say
            return cls._with_fixed_outputs(model, inputs)
        finite = all(bool(output.isfinite().all()) for output in rehearsal.expected or ())
        return rehearsal if finite else cls._with_fixed_outputs(model, inputs)

    @classmethod
    def _with_fixed_outputs(cls, model: nn.Module, inputs: object) -> _Rehearsal:
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
        return "" if self.expected is None or self._same(outputs, self.expected) else _DIFFERENT

    def _grown_outputs(self, graph: ChannelGraph, new: NewChannels) -> list[Tensor]:
        tensors = {n: x.detach() for n, x in (*self.model.named_parameters(), *self.model.named_buffers())}
        growth = AxisGrowth(graph, new, slots_in_place(graph, new.copies))
        install(self.model, growth.values(tensors), graph.layers)
        widths = {group.name: int(new.copies[group.channels].sum()) for group in graph}
        torch.manual_seed(0)
        grown_graph, outputs = read_grown_graph(self.model, self.inputs, graph, widths)
        slots = [axis.slots for axis in grown_graph.axes()]
        if all(map(torch.equal, slots, growth.slots)):
            return outputs
        # A shuffle lies between a neuron and its readers.
        install(self.model, AxisGrowth(graph, new, slots).values(tensors), graph.layers)
        return _outputs(self.model, self.inputs)

    def _same(self, outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
        largest = _STRICT if self.strict else 1.0
        return len(outputs) == len(expected) and all(
            _close(output, wanted, largest) for output, wanted in zip(outputs, expected, strict=True)
        )


def _read(model: nn.Module, inputs: object, awake: Mapping[int, nn.Parameter]) -> tuple[ChannelGraph, list[Tensor]]:
    """Return the graph and the outputs of a model with some parameters exchanged."""
    with modules_restored(model):
        _exchange(model, awake)
        torch.manual_seed(0)
        return read_graph_and_outputs(model, inputs)


def _awake(model: nn.Module) -> dict[int, nn.Parameter]:
    """Return random values for the parameters that have hardly any effect."""
    torch.manual_seed(0)
    asleep = [parameter for parameter in model.parameters() if _asleep(parameter.detach())]
    return {id(parameter): nn.Parameter(0.5 * torch.randn_like(parameter)) for parameter in asleep}


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


def _close(output: Tensor, expected: Tensor, largest: float) -> bool:
    """Whether two outputs are equal up to rounding, or up to `largest` of what varies in them if that is less."""
    if output.shape != expected.shape:
        return False
    if expected.is_complex():
        output, expected = torch.view_as_real(output), torch.view_as_real(expected)
    finite = expected.isfinite()
    if not expected.is_floating_point() or not bool(finite.any()):
        return True
    if not torch.equal(output.isfinite(), finite):
        return False
    # Deep networks magnify rounding, while a width that is used as a number changes much of what varies.
    known, eps = expected[finite], torch.finfo(expected.dtype).eps
    spread = max(float((known - known.mean()).abs().max()), eps**0.5 * float(known.abs().max()))
    return bool(((output[finite] - known).abs() <= min(eps ** (1 / 3), largest) * spread).all())
