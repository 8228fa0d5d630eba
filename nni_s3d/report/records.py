"""What is known of an experiment: its trials, and its networks where the store is there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nni_s3d.errors import ReportError
from nni_s3d.report.networks import TrialNetwork, is_store, networks_of
from nni_s3d.report.nni_database import read_config
from nni_s3d.report.nni_experiments import find_experiment
from nni_s3d.report.table import METRICS, read_frame


@dataclass(frozen=True)
class Records:
    """What is known of one experiment of NNI's, or of one store."""

    name: str  # NNI's id, or the path or URL of a store
    frame: pd.DataFrame  # see `read_frame`
    status: str = ""  # NNI's; none of a store
    networks: Sequence[TrialNetwork] = ()  # none where the store is gone
    config: Mapping[str, Any] = field(default_factory=dict)  # with NNI's keys


def read_records(name: str | None = None, experiments_dir: Path | None = None) -> Records:
    """Return what is known of an experiment.

    Args:
        name: the id of an NNI experiment, by default the latest; or the path or URL of a store.
        experiments_dir: where NNI keeps its list (default: ~/nni-experiments).

    Raises:
        ReportError: there is no such experiment, or none of its trials has finished.
    """
    if name is not None and is_store(name):
        networks = networks_of(name)
        return Records(name, _frame_of(networks), networks=networks)
    experiment = find_experiment(name, experiments_dir)
    frame = read_frame(experiment.id, experiments_dir)
    try:
        networks = networks_of(experiment.id, experiments_dir=experiments_dir)
    except ReportError:  # of another kind, or its store is somewhere else: the numbers are in NNI's database
        networks = []
    return Records(experiment.id, frame, experiment.status, networks, read_config(experiment))


def _frame_of(networks: Sequence[TrialNetwork]) -> pd.DataFrame:
    """Return a row for every network of a store, with the columns of `read_frame`; nobody knows how long they took."""
    rows = []
    for number, one in enumerate(networks):
        metrics = one.network.metrics
        rows.append(
            {"experiment": one.experiment, "trial": one.trial, "sequence": number}
            | {"lineage": one.network.parameters.get("lineage") or "", "step": float(metrics.get("step", math.nan))}
            | {"accuracy": metrics["default"]}
            | {name: float(metrics.get(name, math.nan)) for name in METRICS}
            | {"status": "SUCCEEDED", "seconds": math.nan, "widths": json.dumps(one.network.widths)}
        )
    frame = pd.DataFrame(rows)
    frame.insert(frame.columns.get_loc("train_macs") + 1, "search_macs", frame["train_macs"].cumsum())
    return frame
