"""The command `nni-s3d report`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from nni_s3d.errors import ConfigError, S3DError
from nni_s3d.report.files import write_files
from nni_s3d.report.follow import follow
from nni_s3d.report.networks import is_store
from nni_s3d.report.nni_experiments import ENDED, find_experiment
from nni_s3d.report.records import Records, read_records
from nni_s3d.report.table import table

_logger = logging.getLogger(__name__)


def command(
    names: Sequence[str],
    wait: bool = True,
    out: Path | None = None,
    live: int | None = None,
    as_json: bool = False,
    experiments_dir: Path | None = None,
) -> int:
    """Run `nni-s3d report`: wait for experiments if asked, print their tables, write the files, say where they are.

    Args:
        names: ids of NNI experiments, or paths or URLs of stores; none stands for the latest experiment.
        wait: for experiments that run.
        out: folder of the files.
        live: port at which the page is served while the experiments run, instead of all else.
        as_json: print the trials as JSON instead of tables and places.
        experiments_dir: where NNI keeps its list (default: ~/nni-experiments).

    Raises:
        S3DError: there is nothing to report, or a package is missing.
    """
    chosen: Sequence[str | None] = names or [None]
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"report: expected different experiments, got {', '.join(names)}")
    if live is not None:
        for name in chosen:
            if not (name and is_store(name)):
                find_experiment(name, experiments_dir)  # or it says that there is none
        _with_plotly("live").serve(chosen, live, experiments_dir)
        return 0
    for name in chosen:
        if wait and not (name and is_store(name)):
            _wait_for(name, experiments_dir)
    found = [read_records(name, experiments_dir) for name in chosen]
    if as_json:
        print(*(records.frame.to_json(orient="records", lines=True) for records in found), sep="", end="")
        return 0
    for records in found:
        print(table(records.frame))
    folder = out or Path("reports", _folder_name(found))
    for records in found:
        files = write_files(records.frame, folder if len(found) == 1 else folder / _folder_name([records]))
        print(f"{files.csv}\n{files.png}")
    print(_with_plotly("page").write_page(found, folder))
    return _tell_how_to_go_on(found)


def _tell_how_to_go_on(found: Sequence[Records]) -> int:
    """Say of experiments that did not come to their end how they go on; return 1 if an error was why."""
    for records in found:
        if records.status in ("ERROR", "STOPPED"):
            after = " after an error" if records.status == "ERROR" else ""
            again = f"nnictl resume {records.name}"
            _logger.warning("experiment %s has stopped%s; if it was not done, %s goes on", records.name, after, again)
    return int(any(records.status == "ERROR" for records in found))


def _with_plotly(module: str) -> ModuleType:
    """Import a module of this folder, which takes plotly a second."""
    try:
        return import_module(f"nni_s3d.report.{module}")
    except ImportError as error:
        raise S3DError(f'the page needs {error.name}: pip install "nni_s3d[plots]"') from error


def _wait_for(name: str | None, experiments_dir: Path | None) -> None:
    experiment = find_experiment(name, experiments_dir)
    if experiment.status not in ENDED:
        where = f"http://localhost:{experiment.port}" if experiment.port else experiment.folder
        _logger.info("waiting for the end of experiment %s (%s); --no-wait reports at once", experiment.id, where)
        follow(experiment.id, experiments_dir)


def _folder_name(found: Sequence[Records]) -> str:
    return "+".join(records.name.rstrip("/").rpartition("/")[2] for records in found)
