"""The command `nni-s3d report`."""

from __future__ import annotations

import logging
from pathlib import Path

from nni_s3d.report.files import write_files
from nni_s3d.report.follow import follow
from nni_s3d.report.nni_experiments import ENDED, find_experiment
from nni_s3d.report.table import read_frame, table

_logger = logging.getLogger(__name__)


def command(experiment_id: str | None, wait: bool, out: Path | None, experiments_dir: Path | None = None) -> int:
    """Run `nni-s3d report`: wait for an experiment if asked, print its table, write its files, say where they are.

    Raises:
        S3DError: there is nothing to report, or matplotlib is missing.
    """
    experiment = find_experiment(experiment_id, experiments_dir)
    if wait and experiment.status not in ENDED:
        where = f"http://localhost:{experiment.port}" if experiment.port else experiment.folder
        _logger.info("waiting for the end of experiment %s (%s); --no-wait reports at once", experiment.id, where)
        follow(experiment.id, experiments_dir)
    frame = read_frame(experiment.id, experiments_dir)
    print(table(frame))
    files = write_files(frame, out or Path("reports", experiment.id))
    print(f"{files.csv}\n{files.png}")
    return 0
