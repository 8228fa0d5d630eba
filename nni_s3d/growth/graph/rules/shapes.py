"""Functions that only move elements: the same function moves the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from nni_s3d.growth.graph.channels import EqualParts
from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.labels import drop_repeats, growing_dim, in_same_order
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.rules.elementwise import as_follower

RULES, rule = rule_table()
PICKED = "its channels are picked by an index tensor", "pick positions and leave the channels whole"


@rule(*functions(Kind.MOVE))
def _move(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    return replayed(notes, call, input, args, kwargs)


@rule(*functions(Kind.RESHAPE))
def reshape(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Move the labels as the elements move, and note where that cuts channels into parts."""
    labels = replayed(notes, call, input, args, kwargs)
    if isinstance(labels, Tensor):
        _balance_rows(notes, call.name, labels)
    return labels


@rule("expand_as", reads=("input", "other"))
def _move_as(notes: Notes, call: TracedCall, out: Any, input: Tensor, other: Tensor) -> Any:
    return replayed(notes, call, input, (other,), {})


@rule("broadcast_tensors", reads=("tensors",))
def _broadcast(notes: Notes, call: TracedCall, out: Any, *tensors: Tensor) -> Any:
    labels = [notes.labels(x) for x in tensors]
    return tuple(None if one is None else drop_repeats(one.broadcast_to(out[0].shape)) for one in labels)


@rule("view_as", "reshape_as", reads=("input", "other"))
def _reshape_as(notes: Notes, call: TracedCall, out: Any, input: Tensor, other: Tensor) -> Any:
    return reshape(notes, call, out, input, other)


@rule(*functions(Kind.CUT))
def _cut(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    labels = notes.labels(input)
    if labels is None:
        return None
    picked = _picked_dims(args[0], labels.dim()) if call.name == "getitem" else []
    if picked:
        if any(labels.shape[dim] > 1 for dim in picked) or labels.numel() == 1:
            return notes.refuse_inputs(call.name, (input,), *PICKED)
        args = pytree.tree_map_only(Tensor, Tensor.cpu, args)  # where labels are
    pieces = replayed(notes, call, input, args, kwargs)
    notes.cuts += 1
    _balance_pieces(notes, call.name, labels, pieces)
    return pieces


@rule("gather", "index_select")
def _pick(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, dim: int, index: Tensor, **_: object) -> Any:
    """Pick along one dimension; along the others elements stay where they are, unless some are left out."""
    labels = notes.labels(input)
    if labels is None:
        return None
    cut = any(size > 1 and size != n for size, n in zip(labels.shape, out.shape, strict=True))
    if cut or labels.shape[dim] > 1 or labels.numel() == 1:
        return notes.refuse_inputs(call.name, (input,), *PICKED)
    return labels


@rule("take_along_dim")
def _take(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, indices: Tensor, dim: int | None = None) -> Any:
    if dim is None:
        return notes.refuse_inputs(call.name, (input,), *PICKED)
    return _pick(notes, call, out, input, dim, indices)


def _picked_dims(index: Any, dims: int) -> list[int]:
    """Return the dimensions of a tensor of which index tensors or lists pick elements."""
    parts = list(index) if isinstance(index, tuple) else [index]
    sizes = [_indexed(part) for part in parts]
    if not any(part is ... for part in parts):
        parts, sizes = [*parts, ...], [*sizes, 0]
    picked: list[int] = []
    place, rest = 0, dims - sum(sizes)
    for part, size in zip(parts, sizes, strict=True):
        if isinstance(part, (Tensor, list)):
            picked += range(place, place + size)
        place += rest if part is ... else size
    return picked


def _indexed(part: Any) -> int:
    """Return how many dimensions of a tensor a part of an index is for; not known yet for an ellipsis."""
    if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8):
        return part.dim()
    return 0 if part is None or part is ... else 1


@rule(*functions(Kind.CONCATENATE), reads=("tensors",))
def _cat(notes: Notes, call: TracedCall, out: Tensor, tensors: Any, dim: int = 0, **_: Any) -> Any:
    labels = [notes.labels(x) for x in tensors]
    if all(label is None for label in labels):
        return None
    dim %= out.dim()
    if dim == 0:
        return notes.refuse_inputs(
            call.name,
            tensors,
            "its channels are concatenated along the samples",
            "leave the samples in the first dimension",
        )
    partner = next(label for label in labels if label is not None)
    if partner.shape[dim] == 1 < partner.numel():  # parameters such as a class token lie beside positions
        labels = [
            as_follower(notes, x, partner) if one is None else one for x, one in zip(tensors, labels, strict=True)
        ]
    wide = [_wide(x, label, dim) for x, label in zip(tensors, labels, strict=True) if x.dim() == out.dim()]
    shape = [max(label.shape[d] for label in wide) for d in range(out.dim())]
    full = [label.expand(*shape[:dim], label.shape[dim], *shape[dim + 1 :]) for label in wide]
    joined = drop_repeats(torch.cat(full, dim))
    notes.in_order &= sum(size > 1 for size in joined.shape) <= 1
    return joined


@rule(*functions(Kind.STACK), reads=("tensors",))
def _stack(notes: Notes, call: TracedCall, out: Tensor, tensors: Any, dim: int = 0, **_: Any) -> Any:
    dim %= out.dim()
    if all(notes.labels(x) is None for x in tensors):
        return None
    stacked = drop_repeats(torch.stack([_expanded(x, notes.labels(x)) for x in tensors], dim))
    notes.in_order &= stacked.shape[dim] == 1
    return stacked


@rule(*functions(Kind.PAD))
def _pad(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, pad: Any, *_: Any, **__: Any) -> Any:
    labels = notes.labels(input)
    padded = range(input.dim() - len(pad) // 2, input.dim())
    if labels is not None and any(labels.shape[d] > 1 and out.shape[d] != input.shape[d] for d in padded):
        return notes.refuse_inputs(call.name, (input,), "pad adds channels beside its own", "pad positions alone")
    return labels


def replayed(notes: Notes, call: TracedCall, input: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what the function does to the labels of its input."""
    labels = notes.labels(input)
    if labels is None:
        return None
    try:
        # Contiguous, since a view of the tensor may be none of expanded labels; and small, for these are many.
        moved = call.func(labels.int().expand(call.shapes[id(input)]).contiguous(), *args, **kwargs)
    except (RuntimeError, TypeError, NotImplementedError):
        return notes.refuse_inputs(call.name, (input,), instead="move elements with reshape, permute or an index")
    pieces = (moved,) if isinstance(moved, Tensor) else tuple(moved)
    if any(isinstance(x, torch.dtype) for x in (*args, *kwargs.values())):  # a view of the bits of other numbers
        return notes.refuse_inputs(call.name, (input,), instead="leave their type as it is")
    pieces = tuple(drop_repeats(piece).to(labels.dtype) for piece in pieces)
    notes.in_order &= all(in_same_order(labels, piece) for piece in pieces)
    return pieces[0] if isinstance(moved, Tensor) else pieces


def _balance_rows(notes: Notes, name: str, labels: Tensor) -> None:
    """Note where channels run along several dimensions: that cuts them into parts that must stay equal."""
    if labels.shape[0] > 1:
        notes.refuse(
            [labels], f"{name} mixes its channels with the samples", "leave the samples in the first dimension"
        )
    if sum(size > 1 for size in labels.shape) > 1:
        notes.reshapes.append((name, labels))


def _balance_pieces(notes: Notes, name: str, labels: Tensor, pieces: Any) -> None:
    """Take a cut for one into equal parts, where its pieces are such; if it is not, the probe finds out."""
    first = pieces[0] if isinstance(pieces, tuple) else pieces
    varying = sum(size > 1 for size in labels.shape)
    if varying > 1 and isinstance(pieces, tuple):
        _balance_rows_cut(notes, name, labels, pieces)
    elif first is not None and varying == 1 and 0 < first.numel() < labels.numel():
        parts, rest = divmod(labels.numel(), first.numel())
        if not rest and (len(pieces) == parts if isinstance(pieces, tuple) else _is_a_part(first, labels)):
            notes.note_equal_parts(name, labels.flatten(), parts, notes.cuts - 1)


def _balance_rows_cut(notes: Notes, name: str, labels: Tensor, pieces: tuple[Tensor | None, ...]) -> None:
    """Likewise where channels run along several dimensions, such as heads, and each row of them is cut."""
    dim, shapes = growing_dim(labels), [() if piece is None else tuple(piece.shape) for piece in pieces]
    assert dim is not None
    equal = tuple(size // len(pieces) if d == dim else size for d, size in enumerate(labels.shape))
    if any(shape != equal for shape in shapes) or labels.shape[dim] % len(pieces):
        return
    parts = labels.movedim(dim, -1).reshape(-1, equal[dim])
    notes.equal_parts.append(EqualParts(name, parts, cut=notes.cuts - 1))


def _is_a_part(piece: Tensor, labels: Tensor) -> bool:
    """Whether a piece is one of the equal parts that lie one after the other, not every second channel, say."""
    return bool((labels.reshape(-1, piece.numel()) == piece.flatten()).all(dim=1).any())


def _wide(x: Tensor, labels: Tensor | None, dim: int) -> Tensor:
    """Return labels that have an entry for every index of one dimension."""
    if labels is None:
        labels = torch.full((1,) * x.dim(), -1)
    shape = list(labels.shape)
    shape[dim] = x.shape[dim]
    return labels.expand(shape)


def _expanded(x: Tensor, labels: Tensor | None) -> Tensor:
    return (torch.full((1,) * x.dim(), -1) if labels is None else labels).expand(x.shape)
