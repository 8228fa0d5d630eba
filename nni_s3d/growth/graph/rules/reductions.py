"""Functions that gather along some dimensions: harmless beside the channels, refused across them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.averages import AVERAGING, divides_by_one_less
from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.labels import growing_dim
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.rules.elementwise import meet

RULES, rule = rule_table()
MEAN = "write a mean, which stays as it is when channels are split, or reduce over positions"


@rule(*functions(Kind.AVERAGE_POOL, Kind.MAX_POOL, Kind.OTHER_POOL))
def _pool(notes: Notes, call: TracedCall, out: Any, input: Tensor, *_: object, **__: object) -> Any:
    labels = notes.labels(input)
    if labels is not None and any(size > 1 for size in labels.shape[-int(call.name[-2]) :]):
        return notes.refuse_inputs(
            call.name, (input,), f"{call.name} pools across its channels", "pool over positions alone"
        )
    return labels if isinstance(out, Tensor) else (labels,) * len(out)


@rule(*functions(Kind.INTERPOLATE, Kind.SAMPLE))
def resize(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *_: object, **__: object) -> Any:
    """Hand channels along dimension 1 on; the positions behind it are mixed."""
    labels = notes.labels(input)
    if labels is not None and any(size > 1 for size in labels.shape[2:]):
        return notes.refuse_inputs(
            call.name, (input,), f"{call.name} resizes across its channels", "resize along positions alone"
        )
    return labels


@rule(*functions(Kind.MEAN, Kind.REDUCTION))
def _reduce(
    notes: Notes,
    call: TracedCall,
    out: Any,
    input: Tensor,
    dim: Any = None,
    *args: Any,
    keepdim: bool = False,
    **kwargs: object,
) -> Any:
    labels, first = notes.labels(input), out if isinstance(out, Tensor) else out[0]
    if labels is None:
        return None
    keepdim = keepdim or first.dim() == input.dim()
    # Without dimensions it reduces all; std(x, True) says something about its denominator.
    reduces_all = dim is None or isinstance(dim, bool) or dim in ((), [])
    named = range(labels.dim()) if reduces_all else [dim] if isinstance(dim, int) else dim
    dims = [d % max(labels.dim(), 1) for d in named]
    left = [n for d, n in enumerate(input.shape) if d and d not in dims]
    # The labels of a single channel do not say which way it runs: a dimension of size one must be left for it.
    if (labels.numel() == 1 and 1 not in left) or not _are_parts(labels, dims):
        return _over_channels(notes, call, input, labels, divides_by_one_less(call.name, (dim, *args), kwargs))
    reduced = labels.amax(_joined(notes, labels, dims), keepdim)
    return reduced if isinstance(out, Tensor) else (reduced,) * len(out)


@rule(*functions(Kind.NORM))
def _norm(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    p: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    *_: object,
    **__: object,
) -> Any:
    return _reduce(notes, call, out, input, dim, keepdim=keepdim)


def _over_channels(notes: Notes, call: TracedCall, input: Tensor, labels: Tensor, by_one_less: bool) -> Any:
    """Follow a reduction over channels: an average stays as it is if all of them get equally many copies."""
    if call.name == "sum" and labels.numel() > 1 and bool((labels >= 0).all()):
        reason = notes.refusals.reason("sum reduces over its channels", MEAN)
        notes.products.note(call.name, (input,), labels, divides=False, reading=None, reason=reason)
        return None
    if call.name not in AVERAGING:
        return notes.refuse_inputs(call.name, (input,), f"{call.name} reduces over its channels", MEAN)
    if by_one_less:
        met = f"{call.name} divides by one less than the number of its channels"
        return notes.refuse_inputs(call.name, (input,), met, "write correction=0")
    return note_average(notes, call.name, labels)


def note_average(notes: Notes, where: str, labels: Tensor) -> None:
    """Note an average over all channels of a tensor; what comes out has none, or the same ones."""
    if labels.numel() == 1 or bool((labels < 0).any()):
        met, instead = "averages it together with entries that are no channels of a layer", "average channels alone"
        if labels.numel() == 1:
            met = "may average it: of a single channel the trace cannot tell along which dimension it runs"
            instead = "begin with two channels"
        notes.refuse([labels], f"{where} {met}", instead)
    else:
        notes.averages.note(where, labels)


def _are_parts(labels: Tensor, dims: Sequence[int]) -> bool:
    """Whether channels do not run along these dimensions, or in parts whose number stays when they grow."""
    crossed = [dim for dim in dims if labels.shape[dim] > 1]
    return not crossed or growing_dim(labels) not in crossed


def _joined(notes: Notes, labels: Tensor, dims: Sequence[int]) -> tuple[int, ...]:
    """Make those channels one that meet in a function over some dimensions, such as a sum of branches; return these."""
    for dim in dims:
        if labels.shape[dim] > 1:
            notes.join(labels.narrow(dim, 0, 1), labels)
            notes.in_order = False
    return tuple(dims)


@rule(*functions(Kind.EXTREME), reads=("input", "dim", "other"))
def _extreme(
    notes: Notes, call: TracedCall, out: Any, input: Tensor, dim: Any = None, keepdim: bool = False, other: Any = None
) -> Any:
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return meet(notes, call.name, out, input, other)
    if isinstance(out, Tensor):  # of all elements
        return notes.refuse_inputs(call.name, (input,), f"{call.name} reduces over its channels", MEAN)
    return _reduce(notes, call, out[0], input, dim, keepdim=keepdim), None


@rule(*functions(Kind.ALONG_DIM))
def _along_one_dimension(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    labels = notes.labels(input)
    dim = kwargs.get("dim", next((a for a in args if isinstance(a, int)), None))
    if labels is None:
        return None
    if dim is None or labels.numel() == 1 or not _are_parts(labels, [dim % labels.dim()]):
        scaled = call.name == "normalize"
        instead = "write F.rms_norm, which divides by a mean" if scaled else "let it run over positions"
        return notes.refuse_inputs(call.name, (input,), f"{call.name} mixes its channels", instead)
    _joined(notes, labels, [dim % labels.dim()])
    return labels


@rule(*functions(Kind.NORMALIZE))
def _normalize(
    notes: Notes, call: TracedCall, out: Tensor, input: Tensor, p: float = 2.0, dim: int = 1, *_: Any, **__: Any
) -> Any:
    return _along_one_dimension(notes, call, out, input, dim)
