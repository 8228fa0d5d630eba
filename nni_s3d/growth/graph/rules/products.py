"""Products of activations, and recurrent layers: no channel passes them, but their MACs are counted."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table

RULES, rule = rule_table()


@rule(*functions(Kind.MATRIX_PRODUCT), reads=("input", "other"))
def _matmul(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, other: Tensor) -> Any:
    first = other if call.name == "rmatmul" else input
    if first.dim() == 1:
        notes.sample_sizes.note_alone(first)
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
    notes: Notes,
    call: TracedCall,
    out: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None = None,
    bias_v: Tensor | None = None,
    add_zero_attn: bool = False,
    *_: Any,
    **__: Any,
) -> Any:
    # The sequence comes first here. Four projections, the scores and the weighted sum.
    if query.dim() == 2:
        notes.sample_sizes.note_alone(query)
    size = query.shape[-1]
    projections = (2 * query.numel() + key.numel() + value.numel()) * size
    keys = key.shape[0] + (bias_k is not None) + add_zero_attn
    notes.note_products(call.name, projections + 2 * query.numel() * keys)
    return notes.refuse_inputs(call.name, (query, key, value))


@rule(*functions(Kind.RECURRENT), reads=("input",))
def _recurrent(notes: Notes, call: TracedCall, out: Any, input: Tensor, *args: Any, **_: Any) -> Any:
    """Every matrix is applied once to every element of every sequence; the kernels are opaque to a counter."""
    packed = isinstance(args[0], Tensor) and not args[0].is_floating_point()  # then it is the sizes of the batches
    matrices = [weight for weight in args[2 if packed else 1] if weight.dim() == 2]
    if not packed and input.shape[0 if args[-1] else 1] == 1:  # also what was given as a sequence without samples
        notes.sample_sizes.note_alone(input.transpose(0, 1) if args[-1] else input)
    positions = input.numel() // input.shape[-1]
    notes.note_products(call.name, positions * sum(matrix.numel() for matrix in matrices))
    return notes.refuse_inputs(call.name, (input, args))
