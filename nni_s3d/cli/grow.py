"""Run an experiment in this process, without NNI.

nni-s3d grow configs/digits/s3d.yml
nni-s3d grow configs/digits/s3d.yml --store /data/runs/digits    # the same command goes on after a stop
nni-s3d grow configs/digits/s3d.yml --json                       # a line for every trial
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_s3d.cli.colour import red

if TYPE_CHECKING:
    from nni_s3d.search.experiment import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, help="an experiment file for nnictl, such as configs/digits/s3d.yml")
    parser.add_argument("--store", help="path or URL of the artefacts (default: runs/<task>-<strategy>)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for every trial")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.search.experiment import read_experiment
    from nni_s3d.tasks.together import together

    experiment = read_experiment(parsed.config)
    url = parsed.store or str(Path("runs", f"{parsed.config.resolve().parent.name}-{parsed.config.stem}"))
    return together(experiment.task, lambda: _run_here(experiment, url, parsed.json)) or 0


def _run_here(experiment: Experiment, url: str, as_json: bool) -> int:
    from tqdm import tqdm

    from nni_s3d.search.experiment import run
    from nni_s3d.search.store import Store

    failed = False
    branches = any(lineage.branches is not None for lineage in experiment.lineages)
    total = None if branches else sum(lineage.steps + 1 for lineage in experiment.lineages)
    with tqdm(total=total, desc="all trials", unit="trial", disable=None, leave=False) as bar:
        for parameters, metrics in run(experiment, Store(url)):
            failed = failed or metrics is None
            told = (
                json.dumps({**parameters, **(metrics or {"failed": True})}) if as_json else _told(parameters, metrics)
            )
            tqdm.write(told, sys.stdout)
            sys.stdout.flush()
            bar.update()
    print(f"artefacts: {url}", file=sys.stderr if as_json else sys.stdout)
    return 1 if failed else 0


def _told(parameters: dict[str, Any], metrics: dict[str, float] | None) -> str:
    """Say in one line what came of a trial."""
    from nni_s3d.search.spec import widths_of

    name = f"{parameters['lineage']} step {parameters['step']}"
    if metrics is None:
        return f"{name}: {red('failed', sys.stdout)}"
    return (
        f"{name}: accuracy {metrics['default']:.4f} (test {metrics['test_accuracy']:.4f}), "
        f"{metrics['params']:,} params, {metrics['macs']:,} MACs, widths {widths_of(parameters)}"
    )
