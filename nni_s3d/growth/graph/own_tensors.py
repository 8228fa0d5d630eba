"""The model's own tensors, and what is made of them alone: views, casts, and functions of every element.

A weight may be transposed, and a scale reshaped or computed, before channels meet it. What counts is which dimension of
which parameter or buffer runs along a dimension of the tensor that they meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nni_s3d.growth.graph.functions import ELEMENTWISE, KINDS, LENDS_SHAPE, Kind

_SAME_PLACES = frozenset((Kind.IDENTITY, Kind.CAST))
_VIEWS = frozenset((Kind.MOVE, Kind.RESHAPE, Kind.CUT))
_REPEATS = ("repeat", "tile")


@dataclass(frozen=True)
class Source:
    """A parameter or buffer that a tensor is made of."""

    name: str
    dims: tuple[int | None, ...]  # by dimension of the tensor: that of the source which runs along it, None for none

    def seen(self, tensor: Tensor) -> Tensor:
        """Return the view of another tensor in the place of the source, which may be larger."""
        if self.dims == tuple(range(tensor.dim())):
            return tensor
        order = [dim for dim in self.dims if dim is not None]
        rest = [dim for dim in range(tensor.dim()) if dim not in order]  # of size 1
        return tensor.permute(*order, *rest).reshape([1 if dim is None else tensor.shape[dim] for dim in self.dims])


class OwnTensors:
    """Knows what is made of a model's own tensors alone.

    Args:
        tensors: {name: parameter or buffer}.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        # Sources by the ids of tensors, which are kept alive so that no two of them ever share an id.
        self._made: dict[int, tuple[Tensor, tuple[Source, ...]]] = {}
        self._views: set[int] = set()  # what holds the very elements of one source
        self._names = {id(tensor): name for name, tensor in self._tensors.items()}

    def _add(self, tensor: Tensor, sources: tuple[Source, ...], is_view: bool) -> None:
        self._made[id(tensor)] = tensor, sources
        if is_view:
            self._views.add(id(tensor))

    @classmethod
    def of(cls, model: nn.Module) -> OwnTensors:
        """Return those of a model."""
        return cls(dict((*model.named_parameters(), *model.named_buffers())))

    def tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer."""
        return self._tensors[name]

    def are_among(self, tensors: Sequence[Tensor]) -> bool:
        """Whether any of these is the model's own, or made of such alone."""
        return any(id(x) in self._names or id(x) in self._made for x in tensors)

    def sources(self, tensor: object) -> tuple[Source, ...]:
        """Return what a tensor is made of; nothing if not of the model's own tensors alone."""
        made = self._made.get(id(tensor))
        if made is not None:
            return made[1]
        name = self._names.get(id(tensor))
        if name is None:
            return ()
        own = self._tensors[name]
        self._made[id(tensor)] = own, (Source(name, tuple(range(own.dim()))),)
        return self._made[id(tensor)][1]

    def view(self, tensor: Tensor | None) -> Source | None:
        """Return the one tensor of which this is a view of all elements, as a transposed weight is; None if of none.

        A dimension of size 1 is that of the source if there is only one to choose from.
        """
        if tensor is None:
            return None
        if id(tensor) in self._names:
            return self.sources(tensor)[0]
        if id(tensor) not in self._views:
            return None
        (source,) = self.sources(tensor)
        shape, dims = self._tensors[source.name].shape, list(source.dims)
        missing = [dim for dim in range(len(shape)) if dim not in dims]
        free = [place for place, dim in enumerate(dims) if dim is None]
        if any(shape[dim] > 1 for dim in missing) or any(tensor.shape[place] > 1 for place in free):
            return None
        if len(missing) == len(free) == 1:
            dims[free[0]] = missing[0]
        return Source(source.name, tuple(dims))

    def follow(self, name: str, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        """Note what a function has made of some tensors; return whether it is made of the model's own alone.

        Args:
            name: of the function.
            given: the tensors among its arguments.
            outputs: those among its results.
        """
        kind, given = KINDS.get(name), given[:1] if name in LENDS_SHAPE else given
        if kind in _SAME_PLACES or kind in _VIEWS:
            if len(given) != 1 or not self.sources(given[0]):
                return False
            follow = self._follow_copy if kind in _SAME_PLACES else self._follow_view
            return all(out is given[0] or follow(name, given[0], out) for out in outputs)
        if kind not in ELEMENTWISE or any(out is x for out in outputs for x in given):  # changed in place
            return False
        if not all(self.sources(x) or x.numel() == 1 for x in given):
            return False
        (out,) = outputs
        self._add(out, tuple(s for x in given for s in _stretched(self.sources(x), x, out)), is_view=False)
        return True

    def _follow_copy(self, _: str, given: Tensor, out: Tensor) -> bool:
        self._add(out, self.sources(given), is_view=False)
        return True

    def _follow_view(self, name: str, given: Tensor, out: Tensor) -> bool:
        if name in _REPEATS:
            repeated = all(n in (1, size) for n, size in zip(given.shape[::-1], out.shape[::-1], strict=False))
            if repeated:
                self._add(out, _stretched(self.sources(given), given, out), is_view=False)
            return repeated
        places = _places(given, out) if out._is_view() else None
        if places is None:
            return False
        sources = (
            Source(source.name, tuple(None if place is None else source.dims[place] for place in places))
            for source in self.sources(given)
        )
        self._add(out, tuple(sources), is_view=self.view(given) is not None)
        return True


def _stretched(sources: Sequence[Source], given: Tensor, out: Tensor) -> tuple[Source, ...]:
    """Return sources with the dimensions of a result over which their tensor is stretched."""
    before = (None,) * (out.dim() - given.dim())
    kept = [size == n for size, n in zip(given.shape[::-1], out.shape[::-1], strict=False)][::-1]
    return tuple(
        Source(source.name, before + tuple(dim if keep else None for dim, keep in zip(source.dims, kept, strict=True)))
        for source in sources
    )


def _places(given: Tensor, out: Tensor) -> list[int | None] | None:
    """Return which dimension of a tensor runs along each one of a view of it, as the strides tell; None if none does.

    Where a dimension is merged, divided or sliced there is nothing to be returned.
    """
    by_stride = {given.stride(dim): dim for dim, size in enumerate(given.shape) if size > 1}
    places: list[int | None] = []
    for size, step in zip(out.shape, out.stride(), strict=True):
        place = by_stride.get(step) if size > 1 and step else None
        if size > 1 and step and (place is None or given.shape[place] != size):
            return None
        places.append(place)
    return places
