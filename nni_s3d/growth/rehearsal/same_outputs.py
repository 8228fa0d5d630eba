"""Whether two networks compute the same, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STRICT = 3e-5  # the relative difference that is taken for rounding, if the precision does not allow less
SLIGHT = 1e-2  # the relative difference up to which a result may be the same in a higher precision
_SUM = 256  # roundings that a sum of many terms may gather, in units of the largest argument


def same_outputs(outputs: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1.0) -> bool:
    """Whether outputs are equal up to rounding, or up to `tolerance` of what varies in them if that is less."""
    return len(outputs) == len(expected) and all(
        _close(output, wanted, tolerance) for output, wanted in zip(outputs, expected, strict=True)
    )


def same_result(result: Tensor, expected: Tensor, given: Sequence[Tensor]) -> bool:
    """Whether two results of one function are equal up to its own rounding.

    Args:
        result: one of them.
        expected: the other one, of the same shape.
        given: the arguments, which are the same for both: a sum of large ones may nearly vanish.
    """
    if torch.equal(result, expected):
        return True
    if not (expected.is_floating_point() or expected.is_complex()) or result.dtype != expected.dtype:
        return False
    if not bool(expected.isfinite().all()):
        finite = expected.isfinite()
        if not torch.equal(result.isfinite(), finite):
            return False
        result, expected = result.where(finite, 0), expected.where(finite, 0)
    eps, apart = torch.finfo(expected.dtype).eps, _largest(result - expected)
    if apart <= min(eps**0.5, STRICT) * _largest(expected):
        return True
    largest = max((_largest(x.nan_to_num(0, 0, 0)) for x in given if x.dtype == expected.dtype), default=0.0)
    return apart <= _SUM * eps * largest


def is_slight(result: Tensor, expected: Tensor) -> bool:
    """Whether results differ by so little that one function may have magnified the rounding of those before."""
    if not expected.is_floating_point():
        return False
    return _largest(result - expected) <= SLIGHT * _largest(expected)


def _largest(x: Tensor) -> float:
    """Return the largest size of an element; infinite or no number if one is."""
    return float(x.abs().max()) if x.numel() else 0.0


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
