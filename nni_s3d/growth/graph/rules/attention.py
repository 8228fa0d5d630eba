"""Attention: queries and keys are read by a sum over their channels, values pass as weighted means over positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.labels import growing_dim
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.rules.products import join_all

RULES, rule = rule_table()
PROJECTIONS = "write a linear layer each for queries, keys and values, and scaled_dot_product_attention"


@rule(*functions(Kind.ATTENTION), reads=("query", "key", "value"))
def _attention(
    notes: Notes, call: TracedCall, out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **options: Any
) -> Any:
    labels, pairs = _values_passed(notes, call, out, value), query.numel() * key.shape[-2]
    notes.products.in_heads += [x for x in map(notes.labels, (query, key, value)) if x is not None]
    notes.note_products(call.name, pairs, _scored(notes, call, query, key, options))
    notes.note_products(call.name, out.numel() * key.shape[-2], labels)
    return labels


def _scored(notes: Notes, call: TracedCall, query: Tensor, key: Tensor, options: Mapping[str, Any]) -> Tensor | None:
    """Return the labels of the channels over which the products of queries and keys are summed; None if none are."""
    channels = [notes.labels(x) for x in (query, key)]
    reason = f"{call.name} multiplies its channels with those of another tensor"
    if any(labels is None or labels.shape[-1] != query.shape[-1] or labels.shape[-2] > 1 for labels in channels):
        return notes.refuse_inputs(
            call.name, (query, key), reason, "let queries and keys come from layers of their own"
        )
    of_query, of_key = (labels.movedim(-2, 0)[0] for labels in channels if labels is not None)
    if query is key or bool((of_query < 0).any() or (of_key < 0).any()):
        return notes.refuse_inputs(
            call.name, (query, key), reason, "let queries and keys come from layers of their own"
        )
    if of_key.dim() > 1 and of_key.shape[-2] > 1:  # several queries may share a head of the keys
        of_key = of_key.repeat_interleave(query.shape[-3] // key.shape[-3], -2)
    summed = join_all(notes, of_query, of_key)
    divides, reading = options.get("scale") is None, notes.averages.note_read()
    notes.products.note(call.name, (key, query), summed, divides, reading, "")
    return summed


def _values_passed(notes: Notes, call: TracedCall, out: Tensor, value: Tensor) -> Tensor | None:
    """Return the labels of what attention makes of its values: weighted means over the sequence."""
    labels = notes.labels(value)
    if labels is None:
        return None
    if growing_dim(labels) != value.dim() - 1 or labels.shape[-2] > 1:
        return notes.refuse_inputs(
            call.name, (value,), f"{call.name} mixes its channels", "let them run along the last dimension"
        )
    heads = labels.shape[-3] if labels.dim() > 2 else 1
    if heads > 1:  # several queries may share a head of the values
        labels = labels.repeat_interleave(out.shape[-3] // heads, -3)
    return labels


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
    return notes.refuse_inputs(call.name, (query, key, value), instead=PROJECTIONS)
