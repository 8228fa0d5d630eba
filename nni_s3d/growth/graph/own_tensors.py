"""The model's own tensors, and what is made of them alone: views, casts, and functions of every element.

A weight may be transposed, and a scale reshaped or computed, before channels meet it. What counts is which dimension of
which parameter or buffer runs along a dimension of the tensor that they meet. Of a tensor that other functions have
made, such as a weight that is normalised, the recipe is kept, so that it can be made again with other values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.growth.graph.functions import ELEMENTWISE, KINDS, LENDS_SHAPE, Kind, canonical_name
from nni_s3d.growth.modules import tensors

_SAME_PLACES = frozenset((Kind.IDENTITY, Kind.CAST))
_VIEWS = frozenset((Kind.MOVE, Kind.RESHAPE, Kind.CUT))
_REPEATS = ("repeat", "tile")


@dataclass(frozen=True)
class Source:
    """A parameter or buffer that a tensor is made of."""

    name: str
    dims: tuple[int | None, ...]  # by dimension of the tensor: that of the source which runs along it, None for none
    block: int | None = None  # which index of its first dimension, if the source is a stack and the tensor one of it

    def seen(self, tensor: Tensor) -> Tensor:
        """Return the view of another tensor in the place of the source, or of its block; it may be larger."""
        dims = self.dims if self.block is None else tuple(None if dim is None else dim - 1 for dim in self.dims)
        if dims == tuple(range(tensor.dim())):
            return tensor
        order = [dim for dim in dims if dim is not None]
        rest = [dim for dim in range(tensor.dim()) if dim not in order]  # of size 1
        return tensor.permute(*order, *rest).reshape([1 if dim is None else tensor.shape[dim] for dim in dims])


@dataclass(frozen=True)
class Recipe:
    """The call that has made a tensor of the model's own tensors alone."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: int  # of the tensor among those that the function returns

    @property
    def name(self) -> str:
        """The function's name, see `canonical_name`."""
        return canonical_name(self.func)


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
        self._recipes: dict[int, tuple[Tensor, Recipe]] = {}  # by id, likewise

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
        return any(id(x) in self._names or id(x) in self._recipes for x in tensors)

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
        view = None if tensor is None else self._view(tensor)
        return view if view is not None and view.block is None else None

    def block(self, tensor: Tensor | None) -> Source | None:
        """Return the stack of which this is a view of one block, as W[e] is of the weights of all experts."""
        view = None if tensor is None else self._view(tensor)
        return view if view is not None and view.block is not None else None

    def _view(self, tensor: Tensor) -> Source | None:
        if id(tensor) in self._names:
            return self.sources(tensor)[0]
        if id(tensor) not in self._views:
            return None
        (source,) = self.sources(tensor)
        shape, dims = self._tensors[source.name].shape, list(source.dims)
        missing = [dim for dim in range(source.block is not None, len(shape)) if dim not in dims]
        free = [place for place, dim in enumerate(dims) if dim is None]
        if any(shape[dim] > 1 for dim in missing) or any(tensor.shape[place] > 1 for place in free):
            return None
        if len(missing) == len(free) == 1:
            dims[free[0]] = missing[0]
        return replace(source, dims=tuple(dims))

    def behind(self, tensor: object) -> tuple[str, ...]:
        """Return the names of all parameters and buffers that a tensor is made of, if of the model's own alone."""
        if id(tensor) in self._names:
            return (self._names[id(tensor)],)
        recipe = self.recipe(tensor)
        if recipe is None:
            return ()
        return tuple(dict.fromkeys(name for x in tensors((recipe.args, recipe.kwargs)) for name in self.behind(x)))

    def stands_for(self, tensor: Tensor) -> str | None:
        """Return the name of the first tensor of as many elements behind a weight, or of its stack; None for none."""
        if (block := self.block(tensor)) is not None:
            return block.name
        return next((n for n in self.behind(tensor) if self._tensors[n].numel() == tensor.numel()), None)

    def recipe(self, tensor: object) -> Recipe | None:
        """Return the call that has made a tensor of the model's own tensors alone; None for these themselves."""
        return self._recipes.get(id(tensor), (None, None))[1]

    def made_again(self, tensor: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Return what a tensor would be with other values {name: tensor} in the places of parameters and buffers."""
        name, recipe = self._names.get(id(tensor)), self.recipe(tensor)
        if name is not None:
            return values.get(name, tensor)
        if recipe is None:
            return tensor
        given = pytree.tree_map_only(Tensor, lambda x: self.made_again(x, values), (recipe.args, recipe.kwargs))
        return tensors(recipe.func(*given[0], **given[1]))[recipe.place]

    def follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> bool:
        """Note what a function has made of its arguments; return whether it is made of the model's own alone."""
        if args and isinstance(args[0], Tensor) and args[0].numel() != 1 and not self.behind(args[0]):  # as a rule
            return False
        given, outputs, name = tensors((args, kwargs)), tensors(out), canonical_name(func)
        given = given[:1] if name in LENDS_SHAPE else given
        returned = [x for x in outputs if any(x is one for one in given)]
        if returned and KINDS.get(name) not in _SAME_PLACES | _VIEWS:  # changed in place
            for tensor in returned:
                self._made.pop(id(tensor), None)
                self._recipes.pop(id(tensor), None)
            return False
        if not any(map(self.behind, given)) or not all(self.behind(x) or x.numel() == 1 for x in given):
            return False
        for place, tensor in enumerate(outputs):
            if all(tensor is not x for x in returned):
                self._recipes[id(tensor)] = tensor, Recipe(func, args, kwargs, place)
        if all(self.sources(x) or x.numel() == 1 for x in given):
            self._follow_places(name, given, [x for x in outputs if all(x is not one for one in returned)])
        return True

    def _follow_places(self, name: str, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note which dimensions of the sources run along those of the outputs, where that can be said."""
        kind = KINDS.get(name)
        if kind in _SAME_PLACES or kind in _VIEWS:
            if len(given) == 1 or all(x.dim() == 0 for x in given[1:]):  # W[e] with a tensor e
                follow = self._follow_copy if kind in _SAME_PLACES else self._follow_view
                for out in outputs:
                    follow(name, given[0], out)
        elif kind in ELEMENTWISE:
            (out,) = outputs
            self._add(out, tuple(s for x in given for s in _stretched(self.sources(x), x, out)), is_view=False)

    def _follow_copy(self, _: str, given: Tensor, out: Tensor) -> None:
        self._add(out, self.sources(given), is_view=False)

    def _follow_view(self, name: str, given: Tensor, out: Tensor) -> None:
        if name in _REPEATS:
            if all(n in (1, size) for n, size in zip(given.shape[::-1], out.shape[::-1], strict=False)):
                self._add(out, _stretched(self.sources(given), given, out), is_view=False)
            return
        places = _places(given, out) if out._is_view() else None
        if places is None:
            return
        sources = [
            replace(source, dims=tuple(None if place is None else source.dims[place] for place in places))
            for source in self.sources(given)
        ]
        is_view = self._view(given) is not None
        self._add(out, tuple(self._of_block(s, out) if is_view else s for s in sources), is_view)

    def _of_block(self, source: Source, out: Tensor) -> Source:
        """Return the source of a view, which knows its block if the view has all dimensions of it but the first."""
        stack = self._tensors[source.name]
        missing = [dim for dim, size in enumerate(stack.shape) if size > 1 and dim not in source.dims]
        if source.block is not None or missing != [0] or stack.dim() < 2:
            return source
        return replace(source, block=int(out.storage_offset() - stack.storage_offset()) // stack.stride(0))


def _stretched(sources: Sequence[Source], given: Tensor, out: Tensor) -> tuple[Source, ...]:
    """Return sources with the dimensions of a result over which their tensor is stretched."""
    before = (None,) * (out.dim() - given.dim())
    kept = [size == n for size, n in zip(given.shape[::-1], out.shape[::-1], strict=False)][::-1]
    return tuple(
        replace(source, dims=before + tuple(d if keep else None for d, keep in zip(source.dims, kept, strict=True)))
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
