"""Wait for the end of an NNI experiment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from nni_s3d.report.nni_database import read_config, read_trials
from nni_s3d.report.nni_experiments import ENDED, find_experiment
from nni_s3d.report.table import duration, formatted
from nni_s3d.report.time_left import time_left

_POLL = 2.0  # seconds
_QUIET_POLLS = 6  # a tuner that has "no more trials" may send one when a trial ends, and NNI takes seconds to start it


def follow(
    experiment_id: str | None = None,
    experiments_dir: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Return the status of an experiment once it has ended; a line on a terminal shows how far it is.

    It has ended too when its tuner has no more trials and nothing has run for a while: NNI itself then waits for ever.

    Raises:
        ReportError: there is no such experiment.
    """
    quiet = 0
    experiment_id = find_experiment(experiment_id, experiments_dir).id
    with tqdm(desc=experiment_id, bar_format="{desc}: {n_fmt} finished, {elapsed}{postfix}", disable=None) as bar:
        while True:
            experiment = find_experiment(experiment_id, experiments_dir)
            trials = read_trials(experiment)
            best = max((t.metrics.get("default", -math.inf) for t in trials), default=-math.inf)
            bar.n = sum(trial.status == "SUCCEEDED" for trial in trials)
            left = time_left(trials, read_config(experiment), time.time())
            rest = "" if left is None else f", about {duration(left)} left"
            bar.set_postfix_str(f"{experiment.status}, best accuracy {formatted(best, '.4f')}{rest}")
            idle = "NO_MORE_TRIAL" in experiment.status and trials and all(t.ended is not None for t in trials)
            quiet = quiet + 1 if idle else 0
            if experiment.status in ENDED or quiet > _QUIET_POLLS:
                return experiment.status
            sleep(_POLL)
