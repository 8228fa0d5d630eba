"""Which groups are to blame for a place where a grown network does not do what the network does, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.spots import Spot, Spots
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from nni_s3d.growth.modules import tensors
from nni_s3d.growth.rehearsal import reasons
from nni_s3d.growth.rehearsal.record import Numbering, Place, plain


@dataclass(frozen=True)
class Failure:
    """A place where the grown network does not do what the network does."""

    place: int  # how many calls were made before
    reason: str
    groups: tuple[str, ...] = ()  # those to blame, as far as can be seen
    each: bool = True  # whether every one of them fails here without the others
    by_rounding: bool = False  # whether numbers differ by so little that it may be a magnified rounding
    attributes: tuple[WidthAttribute, ...] = ()  # those that count channels and from which it takes numbers


@dataclass(frozen=True)
class Made:
    """A call that the grown network makes, and the same one of the network before."""

    number: int
    name: str  # of the function
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    before: Place

    @property
    def given(self) -> list[Tensor]:
        """The tensors among its arguments."""
        return tensors((self.args, self.kwargs))

    @property
    def other_numbers(self) -> bool:
        """Whether it is given other arguments than before, beside tensors."""
        return repr(plain((self.args, self.kwargs))) != repr(self.before.plain)


class Blame:
    """Names the groups and the reason for each place that fails.

    Args:
        model: which has grown.
        graph: of the network before.
        copies: (channels,) of every channel.
        notes: of the run of the grown network.
        numbering: of its labels, which stand for new channels.

    Attributes:
        failures: one for each place.
        drawn: tensors by their ids, and the functions that have drawn them at random for every channel.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, copies: Tensor, notes: Notes, numbering: Numbering
    ) -> None:
        self.failures: list[Failure] = []
        self.drawn: dict[int, tuple[Tensor, str]] = {}
        self._notes, self._numbering, self._spots = notes, numbering, Spots(model)
        self._names = [group.name for group in graph]
        self._group_of = np.repeat(np.arange(len(graph)), [group.width for group in graph])
        self._parents = torch.arange(copies.numel()).repeat_interleave(copies).numpy()
        self._grows = copies.numpy() > 1
        self._made_of: dict[int, tuple[Tensor, tuple[str, ...]]] = {}
        self._reads: list[tuple[object, tuple[str, ...]]] = []  # of widths: in which function, and of which groups

    def note_read(self, given: Iterable[Tensor]) -> None:
        """Take down that the code looks at the shape of tensors."""
        if groups := self._growing(given):
            self._reads.append((self._spots.of_call().body, groups))

    def note_loss(self, given: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
        """Take down what was made of channels that no rule follows any further."""
        lost = [x for x in outputs if self._numbering.channels(x) is None]
        if lost and (groups := self._growing(given)):
            self._made_of.update((id(x), (x, groups)) for x in lost)

    def by_shape(self, made: Made, error: Exception | None = None) -> None:
        """Note a call that fails, or returns shapes or channels that it should not."""
        spot, given, groups = self._spots.of_call(), made.given, self._growing(made.given)
        # A tensor that a number has given its size meets one that grows.
        still = [x for x in given if not self._growing([x]) and x.numel() > 1]
        if error is not None and groups and len(still) == 1 and len(given) > 1:
            owner = self._notes.owner(still[0])
            reason = reasons.of_partner(made.name, spot, tuple(still[0].shape), owner)
        else:
            reason = reasons.of_call(made.name, made.before, spot, error, made.other_numbers)
        alone = tuple(group for group in groups if self._fails_alone(made, group))
        groups = alone or groups or self._readers(spot)
        each = bool(alone) or len(groups) == 1
        if error is not None and (giver := self._giver_of_sizes(made, spot)):
            groups = tuple(dict.fromkeys((*groups, *giver)))
        self.failures.append(Failure(made.number, reason, groups, each))

    def by_values(self, made: Made, slightly: bool) -> None:
        """Note a call that returns other values than it should, perhaps only slightly other ones."""
        spot, given = self._spots.of_call(), made.given
        groups = self._growing(given)
        drawn = next((self.drawn[id(x)][1] for x in given if id(x) in self.drawn), None)
        if drawn is not None:
            reason = reasons.of_random_numbers(made.name, spot, drawn)
        else:
            reason = reasons.of_values(made.name, spot, made.other_numbers)
            if made.other_numbers or not groups:  # a number that was made of a width
                groups = self._readers(spot) or groups
        self.failures.append(Failure(made.number, reason, groups, len(groups) == 1, slightly))

    def by_refusal(self, made: Made, refusals: Sequence[tuple[Tensor, str]]) -> bool:
        """Note a call, and say so, if channels that grow are among those that were refused at it."""
        for labels, reason in refusals:
            groups = self._groups(self._numbering.channels_of(labels))
            if groups:
                because = reasons.of_refusal(made.name, made.before, self._spots.of_call(), reason, made.other_numbers)
                self.failures.append(Failure(made.number, because, groups, len(groups) == 1))
                return True
        return False

    def by_another_way(self, number: int, name: str) -> None:
        """Note that the grown network calls another function than the network before."""
        groups = self._reads[-1][1] if self._reads else ()
        self.failures.append(
            Failure(number, reasons.of_another_way(name, self._spots.of_call()), groups, len(groups) == 1)
        )

    def by_error(self, number: int, error: BaseException) -> None:
        """Note an error that the model's own code raises behind so many calls."""
        spot = self._spots.of_error(error)
        groups = self._readers(spot, last=True)
        self.failures.append(Failure(number, reasons.of_error(error, spot), groups, len(groups) == 1))

    def by_end(self, number: int) -> None:
        """Note that the network puts out something else, though no call fails that is given channels."""
        groups = self._readers(None)
        self.failures.append(Failure(number, reasons.DIFFERENT, groups, len(groups) == 1, by_rounding=True))

    def _growing(self, given: Iterable[Tensor]) -> tuple[str, ...]:
        """Return the groups that grow and have channels in these tensors, or in those that they were made of."""
        found = (self._groups(self._numbering.channels(x)) or self._made_of.get(id(x), (x, ()))[1] for x in given)
        return tuple(dict.fromkeys(group for groups in found for group in groups))

    def _groups(self, channels: np.ndarray | None) -> tuple[str, ...]:
        """Return the groups that grow among new channels."""
        if channels is None:
            return ()
        old = self._parents[channels[channels >= 0]]
        return tuple(self._names[n] for n in np.unique(self._group_of[old[self._grows[old]]]))

    def _readers(self, spot: Spot | None, last: bool = False) -> tuple[str, ...]:
        """Return the groups whose widths were read in the function of a spot; if there are none, anywhere."""
        here = [] if spot is None else [groups for body, groups in self._reads if body == spot.body]
        reads = here or [groups for _, groups in self._reads]
        return tuple(dict.fromkeys(group for groups in (reads[-1:] if last else reads) for group in groups))

    def _giver_of_sizes(self, made: Made, spot: Spot) -> tuple[str, ...]:
        """Return the group whose width a reshape is given as a number, if it would fail even if no other one grew."""
        readers, sizes = self._readers(spot), [n for x in made.args[1:] for n in (x if isinstance(x, tuple) else (x,))]
        channels = self._numbering.channels(made.args[0]) if made.args else None
        if not made.other_numbers or len(readers) != 1 or channels is None or made.name not in ("view", "reshape"):
            return ()
        if not all(isinstance(n, int) and n >= 0 for n in sizes):
            return ()
        first = np.append(np.diff(self._parents, prepend=-1) > 0, True)  # the first copy of every channel; no channel
        before = made.args[0].numel() * first[channels].sum() // channels.size
        return () if math.prod(sizes) == before else readers

    def _fails_alone(self, made: Made, group: str) -> bool:
        """Whether the call would fail, or return wrong shapes, if of all groups only this one grew.

        To be seen only where nothing else than the tensors it is given would be different then.
        """
        if made.other_numbers or any(self._notes.owner(x) is not None for x in made.given):
            return False
        mine = self._group_of[self._parents] == self._names.index(group)
        kept = np.append(mine | (np.diff(self._parents, prepend=-1) > 0), True)  # of others the first copy; no channel
        known = {id(x): self._numbering.channels(x) for x in made.given}
        if any(map(_along_several, known.values())):
            return False
        args, kwargs = pytree.tree_map_only(Tensor, lambda x: _kept(x, known[id(x)], kept), (made.args, made.kwargs))
        try:
            returned = tensors(made.func(*args, **kwargs))
        except Exception:
            return True
        if any(map(_along_several, made.before.channels)):  # such as heads, of which shapes do not tell
            return False
        number = np.append(np.bincount(self._parents, kept[:-1], len(self._grows)).astype(int), 1)  # of each channel
        both = zip(made.before.values, made.before.channels, strict=True)
        return [x.shape for x in returned] != [_grown_shape(value, channels, number) for value, channels in both]


def _along_several(channels: np.ndarray | None) -> bool:
    """Whether channels run along several dimensions."""
    return channels is not None and bool((np.array(channels.shape) > 1).sum() > 1)


def _kept(tensor: Tensor, channels: np.ndarray | None, kept: np.ndarray) -> Tensor:
    """Return a copy of a tensor with some of its channels, which run along one dimension."""
    if channels is None or channels.size == 1:
        return tensor.clone()
    slots = torch.from_numpy(np.flatnonzero(kept[channels.ravel()])).to(tensor.device)
    return tensor.index_select(int(np.argmax(channels.shape)), slots)


def _grown_shape(value: Tensor, channels: np.ndarray | None, number: np.ndarray) -> torch.Size:
    """Return the shape that a tensor must have when each channel has become a number of channels."""
    sizes = list(value.shape)
    if channels is not None and channels.size > 1:
        sizes[int(np.argmax(channels.shape))] = int(number[channels].sum())
    return torch.Size(sizes)
