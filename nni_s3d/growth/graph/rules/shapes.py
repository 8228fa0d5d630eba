"""Functions that only move elements: the same function moves the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.labels import drop_repeats, in_same_order
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table

RULES, rule = rule_table()


@rule(*functions(Kind.MOVE))
def _move(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    return _replayed(notes, call, input, args, kwargs)


@rule(*functions(Kind.RESHAPE))
def reshape(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Move the labels as the elements move, and note where that cuts channels into parts."""
    labels = _replayed(notes, call, input, args, kwargs)
    if isinstance(labels, Tensor):
        _balance_rows(notes, call.name, labels)
    return labels


@rule(*functions(Kind.CUT))
def _cut(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    labels = notes.labels(input)
    if labels is None:
        return None
    indices = args[0] if call.name == "getitem" and isinstance(args[0], tuple) else args
    if any(isinstance(index, Tensor) for index in indices):
        return notes.refuse_inputs(call.name, (input,), _reason_of_index(labels, indices))
    pieces = _replayed(notes, call, input, args, kwargs)
    _balance_pieces(notes, call.name, labels, pieces)
    return pieces


def _reason_of_index(labels: Tensor, indices: Any) -> str:
    """Say whether an index tensor picks channels, or other things, of which the channels stay whole."""
    dim, rest = 0, labels.dim() - sum(index is not None and index is not ... for index in indices)
    for index in indices:
        if isinstance(index, Tensor) and labels.shape[dim] > 1:
            return "its channels are picked by an index tensor"
        dim += rest if index is ... else index is not None
    return "rows are picked by an index tensor, which has no rule; sum over a mask of zeros and ones instead"


@rule(*functions(Kind.CONCATENATE), reads=("tensors",))
def _cat(notes: Notes, call: TracedCall, out: Tensor, tensors: Any, dim: int = 0, **_: Any) -> Any:
    labels = [notes.labels(x) for x in tensors]
    if all(label is None for label in labels):
        return None
    dim %= out.dim()
    if dim == 0:
        return notes.refuse_inputs(call.name, tensors, "its channels are concatenated along the samples")
    wide = [_wide(x, label, dim) for x, label in zip(tensors, labels, strict=True) if x.dim() == out.dim()]
    shape = [max(label.shape[d] for label in wide) for d in range(out.dim())]
    full = [label.expand(*shape[:dim], label.shape[dim], *shape[dim + 1 :]) for label in wide]
    joined = drop_repeats(torch.cat(full, dim))
    notes.in_order &= sum(size > 1 for size in joined.shape) <= 1
    return joined


@rule(*functions(Kind.STACK), reads=("tensors",))
def _stack(notes: Notes, call: TracedCall, out: Tensor, tensors: Any, dim: int = 0, **_: Any) -> Any:
    dim %= out.dim()
    if dim == 0:
        return notes.refuse_inputs(call.name, tensors, "its channels are stacked along the samples")
    if all(notes.labels(x) is None for x in tensors):
        return None
    notes.in_order = False
    return drop_repeats(torch.stack([_expanded(x, notes.labels(x)) for x in tensors], dim))


@rule(*functions(Kind.PAD))
def _pad(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, pad: Any, *_: Any, **__: Any) -> Any:
    labels = notes.labels(input)
    padded = range(input.dim() - len(pad) // 2, input.dim())
    if labels is not None and any(labels.shape[d] > 1 and out.shape[d] != input.shape[d] for d in padded):
        return notes.refuse_inputs(call.name, (input,), "pad adds channels beside its own")
    return labels


def _replayed(notes: Notes, call: TracedCall, input: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what the function does to the labels of its input."""
    labels = notes.labels(input)
    if labels is None:
        return None
    try:
        # Contiguous, since a view of the tensor may be none of expanded labels.
        moved = call.func(labels.expand(call.shapes[id(input)]).contiguous(), *args, **kwargs)
    except (RuntimeError, TypeError, NotImplementedError):
        return notes.refuse_inputs(call.name, (input,))
    pieces = (moved,) if isinstance(moved, Tensor) else tuple(moved)
    if any(piece.dtype != labels.dtype for piece in pieces):  # a view of the bits of other numbers
        return notes.refuse_inputs(call.name, (input,))
    pieces = tuple(map(drop_repeats, pieces))
    notes.in_order &= all(in_same_order(labels, piece) for piece in pieces)
    return pieces[0] if isinstance(moved, Tensor) else pieces


def _balance_rows(notes: Notes, name: str, labels: Tensor) -> None:
    """Where channels run along several dimensions, all but the last of them cut into parts that must stay equal."""
    if labels.shape[0] > 1:
        notes.refuse([labels], f"{name} mixes its channels with the samples")
    varying = [dim for dim, size in enumerate(labels.shape) if size > 1]
    if len(varying) > 1:
        notes.note_equal_parts(name, labels.flatten(), labels.numel() // labels.shape[varying[-1]])


def _balance_pieces(notes: Notes, name: str, labels: Tensor, pieces: Any) -> None:
    """Take a cut for one into equal parts, where its pieces are such; if it is not, the probe finds out."""
    first = pieces[0] if isinstance(pieces, tuple) else pieces
    varying = sum(size > 1 for size in labels.shape)
    if first is not None and varying == 1 and 0 < first.numel() < labels.numel():
        parts, rest = divmod(labels.numel(), first.numel())
        if not rest and (isinstance(pieces, Tensor) or len(pieces) == parts):
            notes.note_equal_parts(name, labels.flatten(), parts)


def _wide(x: Tensor, labels: Tensor | None, dim: int) -> Tensor:
    """Return labels that have an entry for every index of one dimension."""
    if labels is None:
        labels = torch.full((1,) * x.dim(), -1)
    shape = list(labels.shape)
    shape[dim] = x.shape[dim]
    return labels.expand(shape)


def _expanded(x: Tensor, labels: Tensor | None) -> Tensor:
    return (torch.full((1,) * x.dim(), -1) if labels is None else labels).expand(x.shape)
