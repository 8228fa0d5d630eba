"""Find mistakes in an experiment before anything is trained.

nni-s3d check configs/digits/s3d.yml
nni-s3d check configs/digits/s3d.yml --json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, help="an experiment file for nnictl whose tuner is S3D")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.search.experiment import check, read_experiment

    experiment = read_experiment(parsed.config)
    cost = check(experiment)
    if parsed.json:
        grown = [{"name": lineage.label, "steps": lineage.steps} for lineage in experiment.lineages]
        print(json.dumps({"data": experiment.task.data.name, "lineages": grown, **asdict(cost)}))
        return 0
    names = ", ".join(f"{lineage.label} (up to {lineage.steps} steps)" for lineage in experiment.lineages)
    print(f"{parsed.config}: {names} on {experiment.task.data.name}, from {cost.params:,} params, {cost.macs:,} MACs")
    return 0
