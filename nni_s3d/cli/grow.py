"""Run an experiment in this process, without NNI.

nni-s3d grow configs/digits/s3d.yml
nni-s3d grow configs/digits/s3d.yml --store /data/runs/digits    # the same command goes on after a stop
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_s3d.search.experiment import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, help="an experiment file for nnictl, such as configs/digits/s3d.yml")
    parser.add_argument("--store", help="path or URL of the artefacts (default: runs/<task>-<strategy>)")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.search.experiment import read_experiment
    from nni_s3d.tasks.together import together

    experiment = read_experiment(parsed.config)
    url = parsed.store or str(Path("runs", f"{parsed.config.resolve().parent.name}-{parsed.config.stem}"))
    return together(experiment.task, lambda: _run_here(experiment, url)) or 0


def _run_here(experiment: Experiment, url: str) -> int:
    from nni_s3d.search.experiment import run
    from nni_s3d.search.spec import widths_of
    from nni_s3d.search.store import Store

    failed = False
    for parameters, metrics in run(experiment, Store(url)):
        name = f"{parameters['lineage']} step {parameters['step']}"
        if metrics is None:
            failed = True
            print(f"{name}: failed")
            continue
        print(
            f"{name}: accuracy {metrics['default']:.4f} (test {metrics['test_accuracy']:.4f}), "
            f"{metrics['params']:,} params, {metrics['macs']:,} MACs, widths {widths_of(parameters)}"
        )
    print(f"artefacts: {url}")
    return 1 if failed else 0
