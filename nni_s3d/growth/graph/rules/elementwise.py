"""Functions of every element by itself, and sums and products of tensors, whose channels become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.graph.functions import KINDS, Kind, functions
from nni_s3d.growth.graph.labels import NONE, drop_repeats, growing_dim
from nni_s3d.growth.graph.layer_notes import Block
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.own_tensors import Source
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.written_kinks import WRITTEN

RULES, rule = rule_table()
GATE = "multiply by as many channels, or by none"
OWN = "make that a parameter or buffer with an entry for every channel"


@rule(*functions(Kind.IDENTITY, Kind.CAST, Kind.ACTIVATION, Kind.ELEMENTWISE))
def _elementwise(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *_: object, **__: object) -> Any:
    labels = notes.labels(input)
    if KINDS[call.name] is Kind.ACTIVATION and not notes.own.sources(input):  # these are computed once, for all samples
        notes.note_activation(call.name, out, labels)
    return labels


@rule("to", "type_as", reads=("input", "other"))
def _cast(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, other: Any = None, *_: Any, **__: Any) -> Any:
    """A second tensor lends its type and device."""
    return notes.labels(input)


@rule(*functions(Kind.COMPARISON), reads=("input", "other"))
def _compare(notes: Notes, call: TracedCall, out: Tensor, input: object, other: object = None, **_: object) -> Any:
    """Autograd takes the result for a constant, so that a kink that is written with it would have no curvature."""
    return notes.refuse_inputs(call.name, (input, other), f"{call.name} compares its channels", WRITTEN)


@rule(*functions(Kind.GLU))
def _glu(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, dim: int = -1) -> Any:
    labels = notes.labels(input)
    if labels is None:
        return None
    halves = labels.expand(
        [n if n > 1 or d != dim % labels.dim() else input.shape[d] for d, n in enumerate(labels.shape)]
    )
    first, second = halves.chunk(2, dim)
    notes.in_order = False
    if labels.shape[dim] > 1:
        notes.note_equal_parts(call.name, labels.movedim(dim, 0).flatten(), 2)
    notes.join(first, second)
    return first


# -- two tensors that meet -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Operand:
    """One of two tensors that meet, with the dimensions of the result."""

    tensor: Tensor
    labels: Tensor  # int64, broadcasts to the result
    # Of the shape of the labels: where the tensor has an entry of its own beside channels of the other one, and that
    # entry belongs to no channel. It would have to grow with the channel that it meets, and cannot. None for nowhere.
    foreign: Tensor | None


@rule(*functions(Kind.SUM, Kind.PRODUCT, Kind.COMBINATION), reads=("input", "other"))
def _binary(notes: Notes, call: TracedCall, out: Tensor, input: object, other: object, **_: object) -> Any:
    return meet(notes, call.name, out, input, other)


@rule(*functions(Kind.CHOICE), "addcmul", "addcdiv", "lerp", reads=("operands",))
def _several(notes: Notes, call: TracedCall, out: Tensor, *operands: object, **_: object) -> Any:
    return meet_all(notes, call.name, out, operands)


@rule(*functions(Kind.ADD_AT), reads=("input", "source"))
def _add_at(
    notes: Notes, call: TracedCall, out: Tensor, input: Tensor, dim: int, index: Tensor, source: Tensor, **_: object
) -> Any:
    """A sum along one dimension, in which positions of the second tensor come to places of their own."""
    given = (notes.labels(input), notes.labels(source))
    if any(labels is not None and (labels.shape[dim] > 1 or labels.numel() == 1) for labels in given):
        return notes.refuse_inputs(
            call.name, (input, source), f"{call.name} adds to some of its channels alone", "add to all of them"
        )
    return meet(notes, call.name, out, input, source)


def meet_all(notes: Notes, name: str, out: Tensor, operands: Sequence[object]) -> Tensor | None:
    """Return the labels of what a function makes of the elements of several tensors, see `meet`."""
    labelled = [x for x in operands if notes.labels(x) is not None]
    if len(operands) == 1 or not labelled:
        return notes.labels(operands[0])
    met = [meet(notes, name, out, labelled[0], other) for other in operands if other is not labelled[0]]
    return None if any(labels is None for labels in met) else max(met, key=_size)


def _size(labels: Tensor | None) -> int:
    return 0 if labels is None else labels.numel()


def meet(notes: Notes, name: str, out: Tensor, input: object, other: object) -> Tensor | None:
    """Return the labels of what a function makes of the elements of two tensors: their channels become one."""
    if notes.labels(input) is None and notes.labels(other) is None:
        return None
    first, second = _operand(notes, input, other, out.dim()), _operand(notes, other, input, out.dim())
    if first is None or second is None:
        only = second if first is None else first
        return None if only is None else only.labels
    narrow = [one for one, met in ((first, second), (second, first)) if _stretches(notes, one, over=met)]
    if narrow:
        # Where each is repeated along the channels of the other one, as in an outer product, the wider one passes.
        wide = max((first, second), key=lambda one: one.labels.numel()) if len(narrow) == 2 else None
        refused = [one.tensor for one in narrow if one is not wide]
        notes.refuse_inputs(name, refused, f"{name} repeats it along the channels of another tensor", GATE)
        return next(one.labels for one in (first, second) if all(one.tensor is not x for x in refused))
    labels = torch.broadcast_tensors(first.labels, second.labels)
    for foreign in (first.foreign, second.foreign):
        if foreign is not None:
            reached = [label[foreign.expand_as(label)] for label in labels]
            notes.refuse(reached, f"{name} joins it with a tensor that does not grow with it", OWN)
    notes.join(*labels)
    return joined(torch.maximum(*labels))


def joined(labels: Tensor) -> Tensor:
    """Return labels with size 1 where they do not change, as they may where channels have become one."""
    return drop_repeats(labels) if sum(size > 1 for size in labels.shape) > 1 else labels


def _operand(notes: Notes, tensor: object, partner: object, dims: int) -> _Operand | None:
    """Return one of two tensors that meet in a result of this many dimensions; None for a single number."""
    labels = notes.labels(tensor)
    if not isinstance(tensor, Tensor) or (labels is None and tensor.numel() == 1):
        return None
    if labels is None:
        labels = as_follower(notes, tensor, notes.labels(partner))
    labels, shape = _padded(labels, dims), (1,) * (dims - tensor.dim()) + tensor.shape
    belongs = labels.numpy() >= 0
    if belongs.all():
        return _Operand(tensor, labels, None)
    if belongs.any():
        labels = labels.expand([size if d else len(labels) for d, size in enumerate(shape)])
        return _Operand(tensor, labels, labels < 0)
    beside = [size if d and _varies(notes, partner, d - dims) else 1 for d, size in enumerate(shape)]
    none = torch.full(beside, NONE)
    return _Operand(tensor, none, none < 0 if max(beside) > 1 and tensor not in notes.filled else None)


def _stretches(notes: Notes, narrow: _Operand, over: _Operand) -> bool:
    """Whether broadcasting repeats the channels of one operand along channels of the other."""
    if narrow.tensor.shape == over.tensor.shape:
        return False
    dim, shape = growing_dim(over.labels), (1,) * (over.labels.dim() - narrow.tensor.dim()) + narrow.tensor.shape
    return dim is not None and shape[dim] == 1 and notes.labels(narrow.tensor) is not None


def _varies(notes: Notes, tensor: object, dim: int) -> bool:
    """Whether the channels of a tensor may grow along a dimension, counted from the end."""
    labels = notes.labels(tensor)
    if labels is None:
        return isinstance(tensor, Tensor)
    if -dim > labels.dim():
        return False
    # The labels of a single channel do not say which way it runs.
    return labels.numel() == 1 or growing_dim(labels) == dim + labels.dim()


def as_follower(notes: Notes, tensor: Tensor, partner: Tensor | None) -> Tensor:
    """Return the labels of a tensor without any: those of its partner, if it is the model's own, one entry each."""
    sources, none = notes.own.sources(tensor), torch.full((1,) * tensor.dim(), NONE)
    if not sources or partner is None or bool((partner < 0).any()):
        return none
    missing = tensor.dim() - partner.dim()
    varying = [dim + missing for dim, size in enumerate(partner.shape) if size > 1]
    if not varying or varying[0] < 0 or any(tensor.shape[dim] != partner.shape[dim - missing] for dim in varying):
        return none
    if len(varying) == 1:
        for block, entries in _by_block(notes, sources, varying[0]).items():
            notes.add_followers("scale", partner.flatten(), entries, block)
    elif not _follow_blocks(notes, sources, partner, varying):
        return none
    return partner.reshape([tensor.shape[dim] if dim in varying else 1 for dim in range(tensor.dim())])


def _by_block(notes: Notes, sources: Sequence[Source], dim: int) -> dict[Block | None, list[tuple[str, int | None]]]:
    """Return the sources of a tensor with their dimensions along one of its own, by the block that it is of them."""
    found: dict[Block | None, list[tuple[str, int | None]]] = {}
    for source in sources:
        block = None if source.block is None else Block(source.block, len(notes.own.tensor(source.name)))
        found.setdefault(block, []).append((source.name, source.dims[dim]))
    return found


def _follow_blocks(notes: Notes, sources: Sequence[Source], partner: Tensor, varying: Sequence[int]) -> bool:
    """Let stacks follow channels that run along two dimensions, the blocks along the first; return whether they can."""
    stacked = all(source.block is None and source.dims[varying[0]] == 0 for source in sources)
    if len(varying) != 2 or not stacked or growing_dim(partner) != varying[1] - varying[0] + _first_varying(partner):
        return False
    entries = [(source.name, source.dims[varying[1]]) for source in sources]
    blocks = partner.movedim(_first_varying(partner), 0)
    for index, slots in enumerate(blocks):
        notes.add_followers("scale", slots.flatten(), entries, Block(index, len(blocks)))
    return True


def _first_varying(labels: Tensor) -> int:
    return next(dim for dim, size in enumerate(labels.shape) if size > 1)


def _padded(labels: Tensor, dims: int) -> Tensor:
    return labels if labels.dim() == dims else labels.reshape((1,) * (dims - labels.dim()) + labels.shape)
