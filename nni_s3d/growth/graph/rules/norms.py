"""Norms: of every channel by itself, or of several together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Operation
from nni_s3d.growth.graph.functions import Kind, batch_norm_arguments, functions
from nni_s3d.growth.graph.labels import growing_dim
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.rules.layers import follow
from nni_s3d.growth.graph.rules.reductions import note_average

RULES, rule = rule_table()


@rule(*functions(Kind.BATCH_NORM))
def _batch_norm(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    norm = batch_norm_arguments(call.func, args, kwargs)
    slots = _normalised(notes, call, out, input)
    if norm["running_mean"] is None or norm["training"]:
        return notes.refuse_inputs(call.name, (input,), "its batch norm takes the statistics of the batch")
    if slots is None:
        return notes.refuse_inputs(call.name, (input,), "its batch norm runs over another dimension than its channels")
    followers = [(norm[key], 0) for key in ("weight", "bias", "running_mean", "running_var")]
    return follow(notes, call.name, slots, followers, notes.spread(slots, out.dim(), 1))


@rule(*functions(Kind.INSTANCE_NORM))
def _instance_norm(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: object,
    **__: object,
) -> Any:
    slots = _normalised(notes, call, out, input)
    if slots is None:
        reason = "its instance norm runs over another dimension than its channels"
        return notes.refuse_inputs(call.name, (input,), reason)
    followers = [(tensor, 0) for tensor in (weight, bias, running_mean, running_var)]
    return follow(notes, call.name, slots, followers, notes.spread(slots, out.dim(), 1))


def _normalised(notes: Notes, call: TracedCall, out: Tensor, input: Tensor) -> Tensor | None:
    """Note a norm of every channel and return the channels (n,) along dimension 1, None if they run along another."""
    slots = notes.along(input, 1)
    notes.operations.append(Operation(call.name, out.numel() / max(out.shape[1], 1), slots=slots))
    return slots


@rule("group_norm")
def _group_norm(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *_: object,
    **__: object,
) -> Any:
    slots = notes.along(input, 1)
    if slots is None:
        return notes.refuse_inputs(call.name, (input,), f"{call.name} runs over another dimension than its channels")
    labels = notes.labels(input)
    if num_groups != input.shape[1] and labels is not None:
        note_average(notes, _where(notes, call, weight), labels)
    return follow(notes, call.name, slots, [(weight, 0), (bias, 0)], notes.spread(slots, out.dim(), 1))


@rule("layer_norm", "rms_norm")
def _norm_over_last_dimensions(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Any = None,
    *_: object,
    **__: object,
) -> Any:
    """Weight and bias have an entry for each element; in the place of a bias, `rms_norm` takes a number."""
    labels, where = notes.labels(input), _where(notes, call, weight)
    if labels is None:
        return None
    along = [dim for dim, size in enumerate(labels.shape) if size > 1]
    over = labels.dim() - len(normalized_shape)  # the first dimension of a norm
    if along and max(along) < over:  # every channel has a norm of its own
        return labels
    if len(along) > 1:
        if growing_dim(labels) != along[-1] or along[-2] >= over or bool((labels < 0).any()):
            return notes.refuse_inputs(call.name, (input,), f"{where} mixes channels that run along several dimensions")
        # Other channels at other positions, such as those of a class token: weight and bias have one entry for them.
        for dim in along[:-1]:
            notes.join(labels.narrow(dim, 0, 1), labels)
            labels = labels.narrow(dim, 0, 1)
        notes.in_order = False
    note_average(notes, where, labels)
    if not along:
        return None
    followers = [(tensor, along[-1] - over) for tensor in (weight, bias) if isinstance(tensor, Tensor)]
    return follow(notes, call.name, labels.flatten(), followers, labels)


def _where(notes: Notes, call: TracedCall, weight: Tensor | None) -> str:
    """Name the layer that a norm is, or the function."""
    return (notes.owner(weight) or "").rpartition(".")[0] or call.name


@rule("local_response_norm")
def _local_response_norm(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, *_: object, **__: object) -> Any:
    return notes.refuse_inputs(call.name, (input,), f"{call.name} mixes its channels")
