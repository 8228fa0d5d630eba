"""Refuse channels that are averaged together with some that cannot be split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nni_s3d.growth.graph.averages import Average
from nni_s3d.growth.graph.channels import ChannelGroup
from nni_s3d.growth.graph.labels import NONE

_UNKNOWN = "those of a weight that the trace cannot follow"


def averages_refused(groups: Sequence[ChannelGroup], averages: Sequence[Average]) -> tuple[ChannelGroup, ...]:
    """Return the groups, those refused that meet in some average with channels that cannot be split.

    Args:
        groups: of a graph.
        averages: whose channels are numbered as those of the groups are, NONE for such as no group has.
    """
    reasons = {n: group.reason for n, group in enumerate(groups) if group.reason}
    causes = {n: f"{groups[n].name}: {reason}" for n, reason in reasons.items()} | {NONE: _UNKNOWN}
    group_of = np.append(np.repeat(np.arange(len(groups)), [group.width for group in groups]), NONE)
    left = {n: np.unique(group_of[average.channels.numpy()]).tolist() for n, average in enumerate(averages)}
    while found := {n: inside for n, inside in left.items() if any(group in causes for group in inside)}:
        for n, inside in found.items():
            cause = next(causes[group] for group in inside if group in causes)
            why = f"{averages[n].where} averages them together with channels that cannot be split ({cause})"
            for group in (group for group in inside if group not in causes):
                reasons[group], causes[group] = why, cause
            del left[n]
    return tuple(replace(group, reason=reasons.get(n, "")) for n, group in enumerate(groups))
