"""Find the places where a grown network does not do what the network does.

Every call of the grown network is held to what the same call of the network returned: the same elements, those of a
neuron once for each copy. Then the call's result is replaced by just that. So rounding cannot grow from call to call,
random numbers are the same, ties are broken alike, and the run goes on behind a place that fails: one run finds all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.functions import DROPOUTS, READS_SHAPES, canonical_name
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.tracer import Tracer
from nni_s3d.growth.modules import tensors
from nni_s3d.growth.rehearsal.along_channels import AlongChannels
from nni_s3d.growth.rehearsal.blame import Blame, Failure, Made
from nni_s3d.growth.rehearsal.record import Numbering, Place, Recorder, changes_in_place
from nni_s3d.growth.rehearsal.same_outputs import is_slight, same_result
from nni_s3d.growth.surgery.new_channels import NewChannels, made_up

_READS_WIDTHS = {"shape", "size", "numel", "nelement", "len", "stride"}
RANDOM = {
    *"rand randn randint randperm rand_like randn_like randint_like bernoulli normal multinomial poisson".split(),
    *"binomial uniform exponential log_normal geometric cauchy random rrelu".split(),
    *DROPOUTS,
}


class _Stop(BaseException):
    """The run cannot go on behind this place. Code of the model that catches errors lets it pass."""


class SideBySide(Tracer):
    """One run of a grown network beside the record of the network.

    Args:
        model: which has grown.
        graph: of the network before.
        new: its channels; products take the weights of copies here, so that what enters them can be compared.
        rows: the new channels of every row, see `Numbering`.
        record: of the network before.
        training: whether to run it in the mode that it is in, not in evaluation mode.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        new: NewChannels,
        rows: Mapping[tuple[str, int], Tensor],
        record: Recorder,
        training: bool = False,
    ) -> None:
        super().__init__(model, RULES, graph.channels_pass)
        self._record, self._training, self._along, self._next = record, training, AlongChannels(new.copies), 0
        weights = new.weights * made_up(graph, new.copies)[new.parents]
        self._weights = np.append(weights.numpy(), 1.0)  # the last one is for no channel
        self._numbering, self._growing_dims = Numbering(self.notes, rows), graph.growing_dims
        self._blame = Blame(model, graph, new.copies, self.notes, self._numbering)

    def failures(self, inputs: object) -> list[Failure]:
        """Run the network and return the places that fail."""
        try:
            self.run(inputs, self._training)
        except _Stop:
            pass
        except ModelError as error:
            if error.__cause__ is None:
                raise
            self._blame.by_error(self._next, error.__cause__)
        else:
            if not self._blame.failures and not self._ends_alike():
                self._blame.by_end(self._next)
        return self._blame.failures

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, canonical_name(func)
        if name in READS_SHAPES:
            if name in _READS_WIDTHS:
                self._blame.note_read(tensors(args))
            return func(*args, **kwargs)
        if self.rewrites:
            return super().__torch_function__(func, types, args, kwargs)
        before = self._record.places[self._next] if self._next < len(self._record.places) else None
        if before is None or before.name != name:
            self._blame.by_another_way(self._next, name)
            raise _Stop
        if before.sums:
            args, kwargs = self._weighted(args, kwargs)
        made, refusals = Made(self._next, name, func, args, kwargs, before), len(self.notes.refusals)
        try:
            out = super().__torch_function__(func, types, args, kwargs)
        except Exception as error:
            if self._bug is not None:
                raise
            self._blame.by_shape(made, error)
            failed = True
        else:
            refused = [] if self._training else self.notes.refusals[refusals:]  # what only training does need not pass
            failed = self._blame.by_refusal(made, refused) or self._fails(made, out)
            self._blame.note_loss(made.given, tensors(out))
        self._next += 1
        if failed and changes_in_place(func, args, kwargs):
            raise _Stop
        return self._instead(before) if failed else out

    def _weighted(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a product over channels with the first factor times the weights of copies."""
        flat, structure = pytree.tree_flatten((args, dict(sorted(kwargs.items(), key=lambda item: item[0] != "query"))))
        for n, x in enumerate(flat):
            if isinstance(x, Tensor) and (channels := self._numbering.channels(x)) is not None:
                flat[n] = x * torch.from_numpy(self._weights[channels]).to(x)
                self.notes.label(flat[n], self.notes.labels(x))
                break
        weighted: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(flat, structure)
        return weighted

    def _fails(self, made: Made, out: Any) -> bool:
        """Hold a result to what it must be and put that into its place, or note that it is something else."""
        outputs, values = tensors(out), made.before.values
        if len(outputs) != len(values):
            self._blame.by_shape(made)
            return True
        given = made.given
        for output, value, before in zip(outputs, values, made.before.channels, strict=True):
            after = self._numbering.channels(output)
            parts_stay = self._parts_stay(made.before, before, after)
            wanted = self._along.expected(value, before, after, output.shape) if parts_stay else None
            if wanted is None:
                if before is not None or after is not None:
                    self._blame.by_shape(made)
                    return True
                drawn = [self._blame.drawn[id(x)][1] for x in given if id(x) in self._blame.drawn]
                if made.name in RANDOM or drawn:  # and of sizes that follow a width
                    self._blame.drawn[id(output)] = (output, (*drawn, made.name)[0])
            elif made.name in RANDOM or (given and same_result(output, wanted, given)):
                if not torch.equal(output, wanted):
                    output.copy_(wanted)
            elif before is not None:
                # What is drawn while a network is trained need not be the same for a copy.
                if not (self._training and any(id(x) in self._blame.drawn for x in given)):
                    self._blame.by_values(made, is_slight(output, wanted))
                output.copy_(wanted)
        return False

    def _parts_stay(self, place: Place, before: np.ndarray | None, after: np.ndarray | None) -> bool:
        """Whether a reshape has laid channels out in as many parts as before."""
        if place.reshape is None or before is None or after is None or before.ndim != after.ndim:
            return True
        dim = self._growing_dims.get(place.reshape, int(np.flatnonzero(np.array(before.shape) > 1)[-1]))
        return np.delete(before.shape, dim).tolist() == np.delete(after.shape, dim).tolist()

    def _ends_alike(self) -> bool:
        """Whether the network puts out what it has put out before, where that is no result of a layer."""
        before, after = self._record.notes.outputs, self.notes.outputs
        return len(before) == len(after) and all(
            a.shape == b.shape and same_result(a, b, [b]) for a, b in zip(after, before, strict=True)
        )

    def _instead(self, place: Place) -> Any:
        """Return what a place should have returned, with copies beside their neurons."""
        dim = None if place.reshape is None else self._growing_dims.get(place.reshape)
        handed = iter([self._handed(*one, dim) for one in zip(place.values, place.channels, strict=True)])
        return pytree.tree_map_only(Tensor, lambda tensor: next(handed), place.out)

    def _handed(self, value: Tensor, before: Any, dim: int | None) -> Tensor:
        if before is None:
            return value.clone()
        after = self._along.in_place(before, dim)
        if after is None:
            raise _Stop
        shape = torch.Size(n if n > 1 else size for n, size in zip(after.shape, value.shape, strict=True))
        wanted = self._along.expected(value, before, after, shape)
        if wanted is None:
            raise _Stop
        self.notes.label(wanted, self._numbering.labels(after))
        return wanted
