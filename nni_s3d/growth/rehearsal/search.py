"""Refuse the groups whose growth would change what the network computes, whatever the rules of the trace say.

A model may hold a width as a number: a reshape to fixed sizes, a division by the number of channels, a check. No rule
sees that; so the growth of all groups is rehearsed. Where it fails, the places are found that fail, and the groups
whose channels are there are taken out. Where no place tells, the groups are divided until those are found that fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.equal_parts import cutters, in_equal_parts
from nni_s3d.growth.graph.following import with_attributes
from nni_s3d.growth.graph.union_find import UnionFind
from nni_s3d.growth.modules import untouched_random_state
from nni_s3d.growth.rehearsal.blame import Failure
from nni_s3d.growth.rehearsal.pattern import random_copies, rehearsed_copies, stuck
from nni_s3d.growth.rehearsal.rehearsal import Rehearsal
from nni_s3d.growth.rehearsal.wrapped import check_floats, check_unwrapped, graph_of_torchscript

_UNEQUAL = "its growth alone would leave unequal parts where its channels are cut"
_OWN_LAYERS = "give each part a layer of its own"
_UNLIKE = "its growth alone would change an average over its channels and others"
_DRAWS = 2  # rehearsals with random neurons besides, where a function changes the order of channels that are cut
_NOWHERE = -1  # the place of what fails before a run


def rehearsed_graph(model: nn.Module, example_inputs: object) -> ChannelGraph:
    """Return the channel graph of a model, which is left as it is; groups that cannot grow in it are refused.

    Raises:
        ModelError: as `trace`.
    """
    check_unwrapped(model)
    if (hidden := graph_of_torchscript(model, example_inputs)) is not None:
        return hidden
    with torch.no_grad(), untouched_random_state():
        quick = Rehearsal.in_place(model, example_inputs)
        graph = quick.graph
        check_floats(model, graph)
        if not graph.splittable_groups:
            return graph
        search = _Search(graph, quick, quick.as_if_training())
        search.run()
    groups = (replace(group, reason=group.reason or search.refused.get(group.name, "")) for group in search.graph)
    return replace(search.graph, groups=tuple(groups))


@dataclass
class _Search:
    """Looks for the groups that cannot grow together with those that are fine."""

    graph: ChannelGraph
    evaluation: Rehearsal
    training: Rehearsal | None  # None where it is the same
    fine: list[ChannelGroup] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # {group: reason}
    no_help: dict[str, str] = field(default_factory=dict)  # {attribute of a module: what fails when it grows}

    def __post_init__(self) -> None:
        self._base = self.graph  # without attributes that grow

    def run(self) -> None:
        """Take out the groups that are to blame until all is well, and try those again that perhaps were not."""
        growing, doubtful = list(self.graph.splittable_groups), set[str]()
        blamed: dict[str, set[str]] = {}  # groups at every place that has failed
        while growing and (failures := self._failures(growing)):
            if self._follow(failures):  # which may divide groups
                growing, doubtful, blamed = list(self.graph.splittable_groups), set(), {}
                self.refused.clear()
                continue
            names = {group.name for group in growing}
            certain = {name for failure in failures if failure.each for name in failure.groups}
            out = {name: self._reason(one) for one in reversed(failures) for name in one.groups if name in names}
            if not out:
                self._divide(growing)
                growing = []
                break
            for failure in failures:
                where = str(failure.place)
                doubtful |= blamed.get(where, set())  # it fails without them too
                blamed.setdefault(where, set()).update(failure.groups)
            doubtful |= out.keys() - certain
            self.refused.update(out)
            growing = [group for group in growing if group.name not in out]
        self.fine.extend(growing)
        if doubtful:
            again = [group for group in self.graph.splittable_groups if self._may_be_fine(group, doubtful)]
            self._divide(again)

    def _follow(self, failures: Sequence[Failure]) -> bool:
        """Let the attributes grow from which places that fail take widths; return whether they are others than before.

        Those that grow already are no help there, and will grow no more.
        """
        following = {str(attribute): attribute for attribute in self.graph.attributes}
        kept = dict(following)
        for failure in failures:
            used = {str(attribute): attribute for attribute in failure.attributes}
            new = {name: one for name, one in used.items() if name not in following and name not in self.no_help}
            if not new:
                self.no_help.update((name, failure.reason) for name in used if name in following)
            kept |= new
        kept = {name: attribute for name, attribute in kept.items() if name not in self.no_help}
        if kept.keys() == following.keys():
            return False
        self.graph = with_attributes(self._base, kept.values())
        return True

    def _reason(self, failure: Failure) -> str:
        """Say why a place fails, and what else would if the attribute grew from which it takes a width."""
        for name in map(str, failure.attributes):
            why = self.no_help.get(name, failure.reason)
            if why != failure.reason:
                return f"{failure.reason}; nor can the attribute {name} grow: {why.partition(': ')[2]}"
        return failure.reason

    def _may_be_fine(self, group: ChannelGroup, doubtful: set[str]) -> bool:
        """Whether a group that was refused perhaps should not be, or only since others were."""
        return group.name in doubtful or self.refused.get(group.name, "").startswith((_UNEQUAL, _UNLIKE))

    def _divide(self, suspects: Sequence[ChannelGroup]) -> None:
        """Divide the suspects until those are found that fail together with the groups that are fine."""
        failures = self._failures([*self.fine, *suspects])
        if not failures:
            self.fine.extend(suspects)
            for group in suspects:
                self.refused.pop(group.name, None)
        elif len(suspects) == 1:
            self.refused.setdefault(suspects[0].name, failures[0].reason)
        elif certain := self._certain(failures, suspects):
            self.refused = certain | self.refused
            if rest := [group for group in suspects if group.name not in certain]:
                self._divide(rest)
        else:
            for part in self._divided(suspects):
                self._divide(part)

    def _certain(self, failures: Sequence[Failure], suspects: Sequence[ChannelGroup]) -> dict[str, str]:
        """Return {group: reason} of the suspects that fail without the others; none if some place is nobody's alone."""
        names = {group.name for group in suspects}
        if not all(failure.each and names.issuperset(failure.groups) for failure in failures):
            return {}
        return {name: self._reason(failure) for failure in reversed(failures) for name in failure.groups}

    def _failures(self, groups: Sequence[ChannelGroup]) -> list[Failure]:
        """Return what fails when some neurons of these groups, and no others, are split; nothing if all is well."""
        part = self.graph.refuse_others({group.name for group in groups}, "it is left alone")
        still = stuck(part)
        uneven = [group for group in groups if still[group.channels].all()]
        if uneven:
            return [Failure(_NOWHERE, self._reason_of_uneven(part, group), (group.name,)) for group in uneven]
        try:
            copies = rehearsed_copies(part, groups)
            patterns = [copies]
            if self.evaluation.reorders and bool((self._is_cut & ~still).any()):
                # Those that see most come first.
                patterns = [*(random_copies(part, groups, seed) for seed in range(_DRAWS)), copies]
        except ModelError:
            return [Failure(_NOWHERE, f"{_UNEQUAL} ({cutters(part)}); {_OWN_LAYERS}")]
        failures = next(filter(None, (self.evaluation.failures(part, pattern) for pattern in patterns)), [])
        if not failures and self.training is not None:
            found = self.training.failures(part, copies)
            failures = [replace(failure, reason=f"in training mode {failure.reason}") for failure in found]
        return failures

    def _reason_of_uneven(self, part: ChannelGraph, group: ChannelGroup) -> str:
        """Name what cuts the channels of a group into parts, and the groups in other parts that cannot grow."""
        mine = torch.zeros(part.num_channels + 1, dtype=torch.bool)  # the last one is for no channel
        mine[group.channels] = True
        cuts = [(cut.where, cut.parts.flatten()) for cut in part.equal_parts if bool(mine[cut.parts].any())]
        averages = [(one.where, one.channels) for one in part.averages if bool(mine[one.channels].any())]
        met = torch.cat([channels for _, channels in (*cuts, *averages)]).unique()
        others = [one.name for one in part if not one.splittable and bool(_among(met, one).any())]
        where = ", ".join(dict.fromkeys(where for where, _ in cuts or averages))
        why = _UNEQUAL if cuts else _UNLIKE
        instead = f": {', '.join(others)} cannot grow; see why not" if others else f"; {_OWN_LAYERS}"
        return f"{why} ({where}){instead}"

    def _divided(self, suspects: Sequence[ChannelGroup]) -> Sequence[Sequence[ChannelGroup]]:
        """Return apart what grows for itself, and what is cut or averaged together; if all are of one kind, halves."""
        bound = self._is_cut | self.graph.averaged
        free = [group for group in suspects if not bound[group.channels].any()]
        clusters = self._clusters([group for group in suspects if bound[group.channels].any()])
        apart = [*([free] if free else []), *clusters]
        half = len(suspects) // 2
        return apart if len(apart) > 1 else (suspects[:half], suspects[half:])

    def _clusters(self, groups: Sequence[ChannelGroup]) -> Sequence[Sequence[ChannelGroup]]:
        """Gather the groups whose channels meet in a cut or an average."""
        same = UnionFind()
        channels = same.fresh(self.graph.num_channels)
        together = [channels[group.channels] for group in groups]
        together += [cut.parts[cut.parts >= 0] for cut in self.graph.equal_parts]
        together += [average.channels for average in self.graph.averages]
        for connected in together:
            same.union(connected[:1].expand_as(connected), connected)
        clusters: dict[int, list[ChannelGroup]] = {}
        for group in groups:
            clusters.setdefault(same.find(group.first), []).append(group)
        return list(clusters.values())

    @property
    def _is_cut(self) -> Tensor:
        return in_equal_parts(self.graph)


def _among(channels: Tensor, group: ChannelGroup) -> Tensor:
    return (channels >= group.first) & (channels < group.first + group.width)
