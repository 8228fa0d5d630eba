"""Refuse the groups whose growth would change what the network computes, whatever the rules of the trace say.

A model may hold a width as a number: a reshape to fixed sizes, a division by the number of channels, a check. No rule
sees that; so some neurons of every group are split in a copy of the model, without moving, and its outputs compared.
The copy computes in double precision and has no parameters near zero, which would hide what follows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.modules import call, copied, evaluation_mode, tensors
from nni_s3d.growth.selection.plan_from_copies import plan_from_copies
from nni_s3d.growth.surgery.split import split

_EVERY = 8  # of the neurons of a group one in so many is split, and the first
_COPIES = 3  # of unequal output weights at this c, so that no two may be mistaken for each other
_C = 2.0
_ASLEEP = 1e-3  # a parameter that is nowhere larger than this is drawn at random


def refuse_groups_that_change_outputs(model: nn.Module, graph: ChannelGraph) -> ChannelGraph:
    """Return the graph with the groups refused that cannot grow in this model."""
    if not graph.splittable_groups:
        return graph
    with torch.no_grad(), torch.random.fork_rng():
        trial = _Trial.awake(model, graph) or _Trial.of(model, graph)
        refused: dict[str, str] = {}
        trial.search([], list(graph.splittable_groups), refused)
    groups = (replace(group, reason=group.reason or refused.get(group.name, "")) for group in graph)
    return replace(graph, groups=tuple(groups))


@dataclass(frozen=True)
class _Trial:
    model: nn.Module
    graph: ChannelGraph
    expected: list[Tensor] | None  # None if there is nothing to compare with

    @classmethod
    def of(cls, model: nn.Module, graph: ChannelGraph) -> _Trial:
        """Return a trial of a model as it is; one that draws random numbers never computes the same."""
        outputs, again = (_outputs(model, graph.example_inputs, seed) for seed in (0, 1))
        fixed = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(outputs, again, strict=True))
        return cls(model, graph, outputs if fixed else None)

    @classmethod
    def awake(cls, model: nn.Module, graph: ChannelGraph) -> _Trial | None:
        """Return a trial of a copy in double precision in which every parameter has an effect, if it runs."""
        try:
            model = copied(model).double()
            torch.manual_seed(0)
            for parameter in model.parameters():
                if parameter.is_floating_point() and float(parameter.abs().max()) < _ASLEEP:
                    parameter.copy_(0.5 * torch.randn_like(parameter))
            inputs = pytree.tree_map_only(Tensor, _doubled, graph.example_inputs)
            trial = cls.of(model, replace(graph, example_inputs=inputs))
        except Exception:  # code that wants another precision, say
            return None
        return trial if all(bool(output.isfinite().all()) for output in trial.expected or ()) else None

    def search(self, fine: list[ChannelGroup], suspects: Sequence[ChannelGroup], refused: dict[str, str]) -> None:
        """Halve the suspects until those are found that fail together with the groups that are fine."""
        trouble = self._trouble([*fine, *suspects])
        if not trouble:
            fine.extend(suspects)
        elif len(suspects) == 1:
            refused[suspects[0].name] = trouble
        else:
            half = len(suspects) // 2
            self.search(fine, suspects[:half], refused)
            self.search(fine, suspects[half:], refused)

    def _trouble(self, groups: Sequence[ChannelGroup]) -> str:
        """Return what happens when some neurons of these groups, and of no others, are split; nothing if all is well.

        Every group has a pattern of its own, so that two that must grow alike are found out.
        """
        part = self.graph.refuse_others({group.name for group in groups}, "it is left alone")
        try:
            wanted = {group.name: _some(group.width, number) for number, group in enumerate(groups)}
            grown = split(
                self.model, part, plan_from_copies(part, with_equal_parts(part, wanted), c=_C), epsilon=0
            ).model
            outputs = _outputs(grown, self.graph.example_inputs)
        except ModelError as error:
            return str(error)
        except Exception as error:
            return f"the model fails when it grows: {first_line(error)}"
        if self.expected is None or _same(outputs, self.expected):
            return ""
        return "the model computes something else when it grows"


def _outputs(model: nn.Module, inputs: object, seed: int = 0) -> list[Tensor]:
    with evaluation_mode(model):
        torch.manual_seed(seed)
        return tensors(call(model, inputs))


def _doubled(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _some(width: int, number: int) -> Tensor:
    copies = torch.ones(width, dtype=torch.int64)
    copies[number % _EVERY :: _EVERY] = _COPIES
    copies[0] = _COPIES - number % 2
    return copies


def _same(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    return len(outputs) == len(expected) and all(map(_close, outputs, expected))


def _close(output: Tensor, expected: Tensor) -> bool:
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
    tolerance = eps ** (1 / 3) * spread
    return bool(((output[finite] - known).abs() <= tolerance).all())
