"""Which network of an experiment is meant: one by its name, or the best within limits."""

from __future__ import annotations

from collections.abc import Sequence

from nni_s3d.errors import ReportError
from nni_s3d.report.networks import TrialNetwork
from nni_s3d.report.table import si


def choose(
    found: Sequence[TrialNetwork],
    trial: str | None = None,
    under_macs: float | None = None,
    under_params: float | None = None,
) -> TrialNetwork:
    """Return the network of a trial, or the one of best validation accuracy within limits.

    Raises:
        ReportError: there is none.
    """
    if trial is not None:
        named = [one for one in found if one.trial == trial]
        if not named:
            raise ReportError(f"trial {trial!r}: expected one of {', '.join(one.trial for one in found)}")
        return named[0]
    for kind, limit in (("macs", under_macs), ("params", under_params)):
        if limit is not None:
            smallest = min(one.network.metrics[kind] for one in found)
            found = [one for one in found if one.network.metrics[kind] <= limit]
            if not found:
                raise ReportError(f"--under-{kind}: expected at least {si(smallest)}, the smallest, got {si(limit)}")
    return max(found, key=lambda one: one.network.metrics["default"])
