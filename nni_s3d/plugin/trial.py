"""A trial under NNI, which hands out the spec and takes the metrics.

As a command (`python -m nni_s3d.plugin.trial task.yml`, or with `torchrun --standalone --nproc-per-node 4 -m` for four
GPUs) it belongs to `nnictl create`; `evaluate_model` is the function of the evaluator in a `NasExperiment`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from nni_s3d.errors import S3DError, one_line, print_traceback
from nni_s3d.plugin.tensorboard import write_tensorboard
from nni_s3d.search.history import history
from nni_s3d.search.store import Store, store_url
from nni_s3d.search.trial import run
from nni_s3d.tasks.task import Task, read_task
from nni_s3d.tasks.together import together


def _experiment_folder() -> Path | None:
    """Return the folder of the NNI experiment that this trial belongs to; its own lies some levels below."""
    output = Path(os.environ.get("NNI_OUTPUT_DIR", "")).resolve()
    return next((folder for folder in output.parents if folder.name == os.environ.get("NNI_EXP_ID")), None)


def _tensorboard_folder() -> Path | None:
    """Return where the button of NNI 3.0's web UI looks for a trial's event files: not in the trial's own folder."""
    experiment, trial = _experiment_folder(), os.environ.get("NNI_TRIAL_JOB_ID")
    return experiment / "trials" / trial / "output" / "tensorboard" if experiment and trial else None


def evaluate_model(model: Any, store: str | None = None) -> dict[str, float]:
    """Run the trial of a model of `nni_s3d.plugin.space.TaskSpace` and report to NNI.

    Args:
        model: the space as frozen by a sample.
        store: a path or URL; by default NNI_S3D_STORE, or a folder of the experiment.
    """
    logging.getLogger("nni_s3d").setLevel(logging.INFO)
    return _report(model.parameters, model.task, Store(store or store_url(_experiment_folder())))


def main(arguments: list[str] | None = None) -> int:
    """Run the trial that NNI asks for; of several processes of torchrun, the first one does."""
    task_file = parser().parse_args(arguments).task
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        task = read_task(task_file)
        together(task, lambda: _run_trial(task))
    except S3DError as error:
        print_traceback(error)
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _run_trial(task: Task) -> None:
    import nni

    _report(nni.get_next_parameter() or {}, task, Store(store_url(_experiment_folder())))


def _report(parameters: dict[str, Any], task: Task, store: Store) -> dict[str, float]:
    """Run a trial, and tell NNI and TensorBoard."""
    import nni

    accuracies: list[float] = []

    def on_the_way(accuracy: float) -> None:
        accuracies.append(accuracy)
        nni.report_intermediate_result(accuracy)

    metrics = run(parameters, task, store, on_the_way)
    nni.report_final_result(metrics)
    try:
        if (folder := _tensorboard_folder()) is not None:
            write_tensorboard(history(parameters, task, store), accuracies, folder)
    except Exception as error:  # the trial has succeeded all the same
        logging.getLogger("nni_s3d").warning("TensorBoard has nothing of this trial: %s", one_line(error))
    return metrics


def parser() -> argparse.ArgumentParser:
    """Return the parser of the trial command."""
    made = argparse.ArgumentParser(prog="python -m nni_s3d.plugin.trial", description="Run one NNI trial.")
    made.add_argument("task", type=Path, help="the task.yml")
    return made


if __name__ == "__main__":
    from nni_s3d.plugin.plain_json import read_plain_json

    read_plain_json()
    sys.exit(main())
