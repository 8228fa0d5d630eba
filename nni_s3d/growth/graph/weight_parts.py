"""Which rows and columns of a model's parameters make those of a weight, be it one of them or computed from some.

Nothing is known of the functions between them, so that is tried out at random values: row i of the weight must depend
on row i of the parameters alone, and multiplying columns of parameters must multiply those of the weight. Two functions
divide each row by its size and so depend on all columns: weight normalisation and weight standardisation. There a
factor for each row makes up for what new columns change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from nni_s3d.growth.graph.functions import KINDS, Kind, batch_norm_arguments
from nni_s3d.growth.graph.layer_notes import Block
from nni_s3d.growth.graph.own_tensors import OwnTensors, Recipe, Source
from nni_s3d.growth.graph.row_norm import RowNorm

_VIEWS = frozenset((Kind.IDENTITY, Kind.CAST, Kind.RESHAPE))


@dataclass(frozen=True)
class WeightParts:
    """What stands behind a weight; dictionaries are {name of a tensor: its dimension}."""

    name: str  # of the tensor that stands for the weight: the first one with as many elements
    rows: Mapping[str, int]  # parameters whose rows make those of the weight
    columns: Mapping[str, int]  # what must be multiplied to multiply columns of the weight, if anything does it
    copied: Mapping[str, int]  # what has entries for the columns, and need not be multiplied
    copied_rows: Mapping[str, int] = field(default_factory=dict)  # what has entries for the rows, and is no parameter
    norm: RowNorm | None = None  # if rows are divided by their size
    is_vector: bool = False  # a single row, which is no channel
    block: Block | None = None  # if it is one of the weights in a stack

    def fits(self, row: int, column: int, blocks: int) -> bool:
        """Whether rows and columns lie along the same dimensions as those of the weight, as blocks need it."""
        aligned = {*self.rows.values()} <= {row} and {*self.columns.values()} <= {column}
        return blocks == 1 or (aligned and not self.copied)


def weight_parts(
    own: OwnTensors, weight: Tensor, row: int, column: int, parameters: Collection[str]
) -> WeightParts | None:
    """Return what stands behind a weight, None if it is not made of the model's own tensors alone.

    Args:
        own: knows how the weight was made.
        weight: the weight.
        row: its dimension along which the rows lie.
        column: and the columns.
        parameters: names of the tensors that are parameters; of what is computed, neurons consist of these alone.
    """
    view = own.view(weight)
    if view is not None:
        along_rows, along_columns = view.dims[row], view.dims[column]
        rows = {} if along_rows is None else {view.name: along_rows}
        columns = {} if along_columns is None else {view.name: along_columns}
        return WeightParts(view.name, rows, columns, {}, is_vector=not rows)
    if (part := own.block(weight)) is not None:
        return _of_stack(part, own.tensor(part.name), row, column)
    name = own.stands_for(weight)
    return None if name is None else _computed(own, weight, row, column, parameters, name)


def _of_stack(part: Source, stack: Tensor, row: int, column: int) -> WeightParts | None:
    along_rows, along_columns = part.dims[row], part.dims[column]
    if along_rows is None or along_columns is None:
        return None
    block = Block(part.block or 0, len(stack))
    return WeightParts(part.name, {part.name: along_rows}, {part.name: along_columns}, {}, block=block)


def _computed(
    own: OwnTensors, weight: Tensor, row: int, column: int, parameters: Collection[str], name: str
) -> WeightParts:
    trial = _Trial(own, weight, [n for n in own.behind(weight) if own.tensor(n).is_floating_point()])
    try:
        of_rows = trial.parts(row)
    except Exception:  # functions without a derivative, or for values of one kind
        return WeightParts(name, {}, {}, {})
    rows = {n: dim for n, dim in of_rows.items() if n in parameters}
    others = {n: dim for n, dim in of_rows.items() if n not in parameters}
    columns = trial.parts(column)
    norm = _row_norm(own, weight)
    as_weight = norm is not None and own.tensor(norm.direction).shape == weight.shape
    if norm is not None and as_weight and norm.direction in rows and trial.has_factor(norm.length, rows, row):
        return WeightParts(name, rows, {norm.direction: column}, {}, others, norm)
    scaled = trial.scaled_together(columns, column)
    copied = {n: dim for n, dim in columns.items() if n not in scaled}
    return WeightParts(name, rows, scaled, copied, others)


class _Trial:
    """A weight as a function of its sources, at random values in double precision."""

    def __init__(self, own: OwnTensors, weight: Tensor, names: Collection[str]) -> None:
        self._own, self._weight = own, weight
        generator = torch.Generator().manual_seed(0)
        self._values = {
            name: 0.5 + torch.rand(own.tensor(name).shape, generator=generator, dtype=torch.float64) for name in names
        }

    def parts(self, dim: int) -> dict[str, int]:
        """Return {source: dimension} such that entry i of the weight along `dim` depends on entry i of each alone.

        Derivatives of the entries, each times a factor of its own, are then those of the sources times that factor.
        """
        factors = _factors(self._weight.shape[dim])
        slopes, multiplied = self._slopes, self._slopes_for(_along(factors, self._cotangent, dim) * self._cotangent)
        found: dict[str, int] = {}
        for name, slope in slopes.items():
            tolerance = torch.finfo(self._made_weight.dtype).eps ** 0.6 * float(slope.abs().max())
            for d in (d for d, n in enumerate(slope.shape) if n == len(factors)):
                off = (multiplied[name] - _along(factors, slope, d) * slope).abs().max()
                if tolerance > 0 and float(off) <= tolerance:
                    found.setdefault(name, d)
        return found

    @cached_property
    def _made_weight(self) -> Tensor:
        """The weight at the random values, with its graph."""
        for value in self._values.values():
            value.requires_grad_()
        with torch.enable_grad():
            return self._made(self._values)

    @cached_property
    def _cotangent(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return 0.5 + torch.rand(self._weight.shape, generator=generator, dtype=torch.float64)

    @cached_property
    def _slopes(self) -> dict[str, Tensor]:
        return self._slopes_for(self._cotangent)

    def _slopes_for(self, cotangent: Tensor) -> dict[str, Tensor]:
        weight, sources = self._made_weight, tuple(self._values.values())
        slopes = torch.autograd.grad(
            weight, sources, cotangent.to(weight.dtype), retain_graph=True, materialize_grads=True
        )
        return dict(zip(self._values, slopes, strict=True))

    def scaled_together(self, columns: Mapping[str, int], dim: int) -> dict[str, int]:
        """Return which of the sources must be multiplied along their columns so that the weight is, if any."""
        sets = [dict(columns), *({name: d} for name, d in columns.items())]
        return next((chosen for chosen in sets if chosen and self.is_scaled_by(chosen, dim)), {})

    def has_factor(self, name: str, rows: Mapping[str, int], dim: int) -> bool:
        """Whether entries of a source are factors of the rows of the weight."""
        return name in rows and self.is_scaled_by({name: rows[name]}, dim)

    def is_scaled_by(self, chosen: Mapping[str, int], dim: int) -> bool:
        """Whether factors along these dimensions of sources come out along a dimension of the weight."""
        factors = _factors(self._weight.shape[dim])
        values = {n: _along(factors, v, chosen[n]) * v if n in chosen else v for n, v in self._values.items()}
        with torch.no_grad():
            expected = self._made(self._values)
            expected = _along(factors, expected, dim) * expected
            tolerance = torch.finfo(expected.dtype).eps ** 0.6
            return bool(((self._made(values) - expected).abs() <= tolerance * expected.abs().max()).all())

    def _made(self, values: Mapping[str, Tensor]) -> Tensor:
        return self._own.made_again(self._weight, values)


def _factors(size: int) -> Tensor:
    """Return factors of both signs, (size,)."""
    return torch.linspace(0.5, 1.5, size, dtype=torch.float64) * (-1) ** torch.arange(size)


def _along(factors: Tensor, tensor: Tensor, dim: int) -> Tensor:
    return factors.reshape([-1 if d == dim else 1 for d in range(tensor.dim())])


def _row_norm(own: OwnTensors, weight: Tensor) -> RowNorm | None:
    """Return how the rows of a weight are divided by their size, if they are."""
    recipe = _behind_views(own, weight)
    if not isinstance(recipe, Recipe):
        return None
    if recipe.name == "weight_norm":
        direction, length = recipe.args[:2]
        return _of_sources(own, direction, length, centred=False, eps=0.0)
    if recipe.name == "batch_norm":  # of rows in the place of channels
        norm = batch_norm_arguments(recipe.func, recipe.args[1:], recipe.kwargs)
        if norm["running_mean"] is None and norm["weight"] is not None and norm["bias"] is None:
            return _of_sources(own, recipe.args[0], norm["weight"], centred=True, eps=float(norm["eps"]))
    return None


def _of_sources(own: OwnTensors, direction: Tensor, length: Tensor, centred: bool, eps: float) -> RowNorm | None:
    whole, of_rows = _behind_views(own, direction), own.behind(length)
    if not isinstance(whole, str) or len(of_rows) != 1 or own.tensor(of_rows[0]).numel() != len(own.tensor(whole)):
        return None
    return RowNorm(whole, of_rows[0], centred, eps)


def _behind_views(own: OwnTensors, tensor: Tensor) -> str | Recipe | None:
    """Return the name of what has the very elements of a tensor in their order, or the call that has made them."""
    recipe = own.recipe(tensor)
    while recipe is not None and KINDS.get(recipe.name) in _VIEWS:
        tensor = recipe.args[0]
        recipe = own.recipe(tensor)
    return recipe or next(iter(own.behind(tensor)), None)
