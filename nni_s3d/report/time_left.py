"""How long an experiment will still take: from what its trials have taken, and the MACs of those to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from nni_s3d.errors import ConfigError
from nni_s3d.report.nni_database import NNITrial
from nni_s3d.search.lineage import TUNER, Lineage
from nni_s3d.search.read_lineages import lineages


def time_left(trials: Sequence[NNITrial], config: Mapping[str, Any], now: float) -> float | None:
    """Return the seconds until an experiment ends, or None if that cannot be told.

    A trial takes a constant time plus a time per MAC of training, as fitted to those that have finished. The MACs of
    trials to come are those of the finished ones, which grow from step to step of a lineage as they have grown.

    Args:
        trials: as `read_trials` returns them.
        config: the experiment's configuration, from `read_config`.
        now: seconds since 1970.
    """
    finished = [t for t in trials if t.status == "SUCCEEDED" and "train_macs" in t.metrics and t.started and t.ended]
    to_come = _macs_to_come(finished, config)
    if not finished or to_come is None:
        return None
    macs = np.array([trial.metrics["train_macs"] for trial in finished])
    seconds = np.array([((t.ended or 0) - (t.started or 0)) / 1000 for t in finished])
    scale = max(macs.max(), 1.0)
    (constant, per_macs), _ = nnls(np.stack([np.ones_like(macs), macs / scale], axis=1), seconds)
    total = sum(constant + per_macs * m / scale for m in to_come)
    elapsed = sum(now - t.started / 1000 for t in trials if t.started and t.ended is None)
    side_by_side = max(1, min(int(config.get("trialConcurrency", 1)), len(to_come)))
    return float(max(0.0, (total - elapsed) / side_by_side))


def _macs_to_come(finished: Sequence[NNITrial], config: Mapping[str, Any]) -> list[float] | None:
    """Return the training MACs of every trial that has not finished, or None if nobody knows how many there will be."""
    tuner = config.get("tuner") or {}
    if tuner.get("className") == TUNER or tuner.get("name") == "S3D":
        try:
            grown = lineages(tuner.get("classArgs") or {})
        except ConfigError:  # of another version
            return None
        if any(lineage.branches is not None for lineage in grown):
            return None
        return [macs for lineage in grown for macs in _of_lineage(lineage, finished)]
    limit = config.get("maxTrialNumber")
    if not isinstance(limit, int) or not finished:
        return None
    mean = float(np.mean([trial.metrics["train_macs"] for trial in finished]))
    return [mean] * max(0, limit - len(finished))


def _of_lineage(lineage: Lineage, finished: Sequence[NNITrial]) -> list[float]:
    """Return the training MACs of a lineage's steps to come."""
    by_step = {int(t.metrics["step"]): t for t in finished if t.parameters.get("lineage") == lineage.label}
    macs = [by_step[step].metrics["train_macs"] for step in sorted(by_step)]
    to_come = lineage.steps + 1 - len(macs)
    if not macs:  # as the others, for want of anything better
        of_others = [trial.metrics["train_macs"] for trial in finished]
        return [float(np.mean(of_others))] * to_come if of_others else []
    growth = (macs[-1] / macs[0]) ** (1 / (len(macs) - 1)) if len(macs) > 1 and macs[0] else 1.0
    return [macs[-1] * growth**step for step in range(1, to_come + 1)]
