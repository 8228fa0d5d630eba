"""Refuse the groups whose growth would change what the network computes, whatever the rules of the trace say.

A model may hold a width as a number: a reshape to fixed sizes, a division by the number of channels, a check. No rule
sees that; so the growth of all groups is rehearsed, and where it fails, the groups are found for which it does.

The first rehearsal is quick: it takes place in the model itself, in its own precision. Where outputs differ, a copy in
double precision decides whether that was more than rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.equal_parts import cutters, in_equal_parts
from nni_s3d.growth.graph.union_find import UnionFind
from nni_s3d.growth.modules import untouched_random_state
from nni_s3d.growth.rehearsal.pattern import rehearsed_copies
from nni_s3d.growth.rehearsal.rehearsal import DIFFERENT, Rehearsal


def rehearsed_graph(model: nn.Module, example_inputs: object) -> ChannelGraph:
    """Return the channel graph of a model, which is left as it is; groups that cannot grow in it are refused.

    Raises:
        ModelError: as `trace`.
    """
    with torch.no_grad(), untouched_random_state():
        graph, quick = Rehearsal.in_place(model, example_inputs)
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
    quick: Rehearsal
    fine: list[ChannelGroup] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # {group: reason}
    _careful: Rehearsal | None = None

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
        except ModelError:
            return f"its growth alone would leave unequal parts where its channels are cut ({cutters(part)})"
        trouble = self.quick.trouble(part, copies)
        if trouble == DIFFERENT:
            self._careful = self._careful or Rehearsal.in_float64(self.quick.model, self.graph.example_inputs)
            trouble = self._careful.trouble(part, copies)
        return trouble

    def _divided(self, suspects: Sequence[ChannelGroup]) -> Sequence[Sequence[ChannelGroup]]:
        """Return apart what nothing cuts into parts, and what is cut together; if all are of one kind, halves."""
        free = [group for group in suspects if not self._is_cut[group.channels].any()]
        clusters = self._clusters([group for group in suspects if self._is_cut[group.channels].any()])
        apart = [*([free] if free else []), *clusters]
        half = len(suspects) // 2
        return apart if len(apart) > 1 else (suspects[:half], suspects[half:])

    def _clusters(self, groups: Sequence[ChannelGroup]) -> Sequence[Sequence[ChannelGroup]]:
        """Gather the groups whose channels meet in a cut."""
        same = UnionFind()
        channels = same.fresh(self.graph.num_channels)
        together = [channels[group.channels] for group in groups]
        together += [cut.parts[cut.parts >= 0] for cut in self.graph.equal_parts]
        for connected in together:
            same.union(connected[:1].expand_as(connected), connected)
        clusters: dict[int, list[ChannelGroup]] = {}
        for group in groups:
            clusters.setdefault(same.find(group.first), []).append(group)
        return list(clusters.values())

    @cached_property
    def _is_cut(self) -> Tensor:
        return in_equal_parts(self.graph)
