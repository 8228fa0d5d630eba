"""Functions that gather along some dimensions: harmless beside the channels, refused across them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.tracer import FunctionCall, Tracer, registry

RULES, rule = registry()


@rule(*functions(Kind.AVERAGE_POOL, Kind.MAX_POOL, Kind.OTHER_POOL))
def _pool(t: Tracer, call: FunctionCall, out: Any, input: Tensor, *_: object, **__: object) -> Any:
    labels = t.labels(input)
    if labels is not None and any(size > 1 for size in labels.shape[-int(call.name[-2]) :]):
        return t.refuse_inputs(call.name, (input,), f"{call.name} pools across its channels")
    return labels if isinstance(out, Tensor) else (labels,) * len(out)


@rule(*functions(Kind.INTERPOLATE, Kind.SAMPLE))
def _resize(t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, *_: object, **__: object) -> Any:
    labels = t.labels(input)
    if labels is not None and any(size > 1 for size in labels.shape[2:]):
        return t.refuse_inputs(call.name, (input,), f"{call.name} resizes across its channels")
    return labels


@rule(*functions(Kind.MEAN, Kind.REDUCTION))
def _reduce(
    t: Tracer,
    call: FunctionCall,
    out: Tensor,
    input: Tensor,
    dim: Any = None,
    *_: Any,
    keepdim: bool = False,
    **__: object,
) -> Any:
    labels = t.labels(input)
    if labels is None:
        return None
    keepdim = keepdim or out.dim() == input.dim()
    dims = [d % labels.dim() for d in (range(labels.dim()) if dim is None else [dim] if isinstance(dim, int) else dim)]
    kept = [n for d, n in enumerate(input.shape) if d and d not in dims]
    # The labels of a single channel do not say which way it runs: a dimension of size one must be left for it.
    if any(labels.shape[d] > 1 for d in dims) or (labels.numel() == 1 and 1 not in kept):
        return t.refuse_inputs(call.name, (input,), f"{call.name} reduces over its channels")
    return labels.amax(tuple(dims), keepdim)


@rule(*functions(Kind.EXTREME))
def _extreme(t: Tracer, call: FunctionCall, out: Any, input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Tensor) or isinstance(out, Tensor):  # an extreme of two tensors, or of all elements
        return t.refuse_inputs(call.name, (input, dim))
    return _reduce(t, call, out[0], input, dim, keepdim=keepdim), None


@rule(*functions(Kind.ALONG_DIM))
def _along_one_dimension(t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    labels = t.labels(input)
    dim = kwargs.get("dim", next((a for a in args if isinstance(a, int)), None))
    if labels is None:
        return None
    if dim is None or labels.shape[dim] > 1 or labels.numel() == 1:
        return t.refuse_inputs(call.name, (input,), f"{call.name} mixes its channels")
    return labels


@rule(*functions(Kind.NORMALIZE))
def _normalize(
    t: Tracer, call: FunctionCall, out: Tensor, input: Tensor, p: float = 2.0, dim: int = 1, *_: Any, **__: Any
) -> Any:
    return _along_one_dimension(t, call, out, input, dim)
