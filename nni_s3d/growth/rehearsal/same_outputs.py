"""Whether two networks compute the same, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def same_outputs(outputs: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1.0) -> bool:
    """Whether outputs are equal up to rounding, or up to `tolerance` of what varies in them if that is less."""
    return len(outputs) == len(expected) and all(
        _close(output, wanted, tolerance) for output, wanted in zip(outputs, expected, strict=True)
    )


def _close(output: Tensor, expected: Tensor, tolerance: float) -> bool:
    if output.shape != expected.shape:
        return False
    if expected.is_complex():
        output, expected = torch.view_as_real(output), torch.view_as_real(expected)
    finite = expected.isfinite()
    if not expected.is_floating_point() or not bool(finite.any()):
        return True
    if not torch.equal(output.isfinite(), finite):
        return False
    # Deep networks magnify rounding, while a width that is used as a number changes much of what varies.
    known, eps = expected[finite], torch.finfo(expected.dtype).eps
    spread = max(float((known - known.mean()).abs().max()), eps**0.5 * float(known.abs().max()))
    return bool(((output[finite] - known).abs() <= min(eps ** (1 / 3), tolerance) * spread).all())
