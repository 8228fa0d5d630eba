"""Products of activations with each other: no channel passes them, but they cost what they cost."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Operation
from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.tracer import FunctionCall, Tracer, registry

RULES, rule = registry()


@rule(*functions(Kind.MATRIX_PRODUCT))
def _matmul(t: Tracer, call: FunctionCall, out: Tensor, *operands: Any, **_: object) -> Any:
    first = operands[1] if call.name in ("addmm", "baddbmm") else operands[-1 if call.name == "rmatmul" else 0]
    t.operations.append(Operation("matmul", out.numel() * first.shape[-1] // t.samples))
    return t.refuse_inputs(call.name, operands)


@rule(*functions(Kind.ATTENTION))
def _attention(
    t: Tracer, call: FunctionCall, out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Any:
    t.operations.append(Operation("matmul", (query.numel() + out.numel()) * key.shape[-2] // t.samples))
    return t.refuse_inputs(call.name, (query, key, value))


@rule(*functions(Kind.MULTI_HEAD))
def _multi_head_attention(
    t: Tracer, call: FunctionCall, out: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Any:
    # The sequence comes first here. Four projections, the scores and the weighted sum.
    size, positions = query.shape[-1], query.numel() // query.shape[-1]
    others = key.numel() // key.shape[-1] + value.numel() // value.shape[-1]
    scores = 2 * positions * key.shape[0] * size
    projections = (2 * positions + others) * size * size
    t.operations.append(Operation("matmul", (projections + scores) // t.samples))
    return t.refuse_inputs(call.name, (query, key, value))
