"""Products of activations, and recurrent layers: no channel passes them, but their MACs are counted."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.modules import tensors

RULES, rule = rule_table()


@rule(*functions(Kind.MATRIX_PRODUCT), reads=("input", "other"))
def _matmul(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, other: Tensor) -> Any:
    first = other if call.name == "rmatmul" else input
    notes.note_products(call.name, out.numel() * first.shape[-1])
    return notes.refuse_inputs(call.name, (input, other))


@rule(*functions(Kind.AFFINE_MATRIX_PRODUCT), reads=("input", "first", "second"))
def _addmm(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, first: Tensor, second: Tensor, **_: Any) -> Any:
    notes.note_products(call.name, out.numel() * first.shape[-1])
    return notes.refuse_inputs(call.name, (input, first, second))


@rule(*functions(Kind.ATTENTION), reads=("query", "key", "value"))
def _attention(
    notes: Notes, call: TracedCall, out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Any:
    notes.note_products(call.name, (query.numel() + out.numel()) * key.shape[-2])
    return notes.refuse_inputs(call.name, (query, key, value))


@rule(*functions(Kind.MULTI_HEAD), reads=("query", "key", "value"))
def _multi_head_attention(
    notes: Notes, call: TracedCall, out: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Any:
    # The sequence comes first here. Four projections, the scores and the weighted sum.
    size = query.shape[-1]
    projections = (2 * query.numel() + key.numel() + value.numel()) * size
    notes.note_products(call.name, projections + 2 * query.numel() * key.shape[0])
    return notes.refuse_inputs(call.name, (query, key, value))


@rule(*functions(Kind.TORCHSCRIPT), reads=("args", "kwargs"))
def _torchscript(notes: Notes, call: TracedCall, out: Any, script: Any, *args: Any, **kwargs: Any) -> Any:
    where = f"the TorchScript {getattr(script, 'name', 'module')}, which the trace cannot see; call its Python code"
    notes.refuse_inputs(call.name, (args, kwargs), f"its channels enter {where}")
    return (None,) * len(tensors(out))


@rule(*functions(Kind.RECURRENT), reads=("input",))
def _recurrent(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **_: Any) -> Any:
    """Every matrix is applied once to every element of every sequence; the kernels are opaque to a counter."""
    packed = isinstance(args[0], Tensor) and not args[0].is_floating_point()  # then it is the sizes of the batches
    matrices = [weight for weight in args[2 if packed else 1] if weight.dim() == 2]
    positions = input.numel() // input.shape[-1]
    notes.note_products(call.name, positions * sum(matrix.numel() for matrix in matrices))
    return notes.refuse_inputs(call.name, (input, args))
