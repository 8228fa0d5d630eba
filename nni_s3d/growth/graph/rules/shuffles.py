"""Shuffles: of channels in groups, and between channels and positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.rules.shapes import replayed

RULES, rule = rule_table()
THIRD = "let them run along the third dimension from the end"


@rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, groups: int) -> Any:
    """Cut the channels into groups and interleave them."""
    channels = notes.along(input, 1)
    if channels is None:
        met = f"{call.name} shuffles another dimension than its channels"
        return notes.refuse_inputs(call.name, (input,), met, "shuffle dimension 1")
    notes.note_equal_parts(call.name, channels, groups)
    return replayed(notes, call, input, (groups,), {})


@rule("pixel_shuffle")
def _pixel_shuffle(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, upscale_factor: int) -> Any:
    """Lay neighbouring channels out side by side in space: together they are one neuron, with a row for each."""
    channels = notes.along(input, -3)
    if channels is None or (channels < 0).any():
        met = f"{call.name} moves something else than its channels"
        return notes.refuse_inputs(call.name, (input,), met, THIRD)
    neurons = channels.reshape(out.shape[-3], -1)
    notes.in_order = False
    notes.join(neurons[:, :1], neurons)
    return notes.spread(neurons[:, 0], out.dim(), -3)


@rule("pixel_unshuffle")
def _pixel_unshuffle(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, downscale_factor: int) -> Any:
    """Lay the positions of every channel out as channels side by side."""
    channels = notes.along(input, -3)
    if channels is None:
        met = f"{call.name} moves something else than its channels"
        return notes.refuse_inputs(call.name, (input,), met, THIRD)
    return notes.spread(channels.repeat_interleave(out.shape[-3] // len(channels)), out.dim(), -3)
