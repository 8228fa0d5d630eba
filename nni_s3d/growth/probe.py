"""Refuse the groups whose growth would change what the network computes, whatever the rules of the trace say.

A model may hold a width as a number: a reshape to fixed sizes, a division by the number of channels, a check. No rule
sees that; so some neurons of every group are split in a copy of the model, without moving, and its outputs compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.balance import balanced
from nni_s3d.growth.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.modes import call, evaluation_mode, tensors
from nni_s3d.growth.plan import plan_from_copies
from nni_s3d.growth.surgery import split

_EVERY = 8  # of the neurons of a group one in so many is split, but at least one
_COPIES = 3  # of unequal output weights at this c, so that no two may be mistaken for each other
_C = 2.0


def without_pretenders(model: nn.Module, graph: ChannelGraph) -> ChannelGraph:
    """Return the graph with the groups refused that cannot grow in this model."""
    if not graph.splittable:
        return graph
    with evaluation_mode(model), torch.no_grad(), torch.random.fork_rng():
        expected = tensors(call(model, graph.example_inputs))
        refused: dict[str, str] = {}
        _search(model, graph, expected, [], list(graph.splittable), refused)
    groups = (replace(group, reason=group.reason or refused.get(group.name, "")) for group in graph)
    return replace(graph, groups=tuple(groups))


def _search(
    model: nn.Module,
    graph: ChannelGraph,
    expected: list[Tensor],
    fine: list[ChannelGroup],
    suspects: Sequence[ChannelGroup],
    refused: dict[str, str],
) -> None:
    """Halve the suspects until those are found that fail together with the groups that are fine."""
    trouble = _trouble(model, graph, expected, [*fine, *suspects])
    if not trouble:
        fine.extend(suspects)
    elif len(suspects) == 1:
        refused[suspects[0].name] = trouble
    else:
        half = len(suspects) // 2
        _search(model, graph, expected, fine, suspects[:half], refused)
        _search(model, graph, expected, fine, suspects[half:], refused)


def _trouble(model: nn.Module, graph: ChannelGraph, expected: list[Tensor], groups: Sequence[ChannelGroup]) -> str:
    """Return what happens when some neurons of these groups, and of no others, are split; nothing if all is well."""
    names = {group.name for group in groups}
    still = (replace(g, reason=g.reason or ("" if g.name in names else "it is left alone")) for g in graph)
    part = replace(graph, groups=tuple(still))
    try:
        copies = balanced(part, {group.name: _some(group.width) for group in groups})
        grown = split(model, part, plan_from_copies(part, copies, c=_C), epsilon=0).model
        outputs = tensors(call(grown.eval(), graph.example_inputs))
    except ModelError as error:
        return str(error)
    except Exception as error:
        return f"the model fails when it grows: {str(error).strip().splitlines()[0] if str(error) else error!r}"
    if _same(outputs, expected):
        return ""
    again = tensors(call(model, graph.example_inputs))
    # A model that draws random numbers never computes the same.
    return "the model computes something else when it grows" if _same(again, expected) else ""


def _some(width: int) -> Tensor:
    copies = torch.ones(width, dtype=torch.int64)
    copies[_EVERY // 2 :: _EVERY] = _COPIES
    copies[-1] = _COPIES
    return copies


def _same(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    return len(outputs) == len(expected) and all(map(_close, outputs, expected))


def _close(output: Tensor, expected: Tensor) -> bool:
    if output.shape != expected.shape:
        return False
    if not expected.is_floating_point() or not expected.numel():
        return True
    # Deep networks magnify rounding, while a width that is used as a number changes much.
    tolerance = torch.finfo(expected.dtype).eps ** (1 / 3) * float(expected.abs().max())
    return bool(((output - expected).abs() <= tolerance).all()) or not bool(expected.isfinite().all())
