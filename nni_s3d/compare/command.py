"""The command `nni-s3d compare`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from nni_s3d.compare.collect import COLUMNS, collected
from nni_s3d.compare.figure import draw
from nni_s3d.compare.runs import Run, check_runs
from nni_s3d.compare.tables import best_first, dominance, per_seed, summary
from nni_s3d.errors import ConfigError, ReportError, S3DError
from nni_s3d.search.experiment import read_file
from nni_s3d.search.workers import in_processes


def command(
    configs: Sequence[Path],
    ids: Sequence[str],
    budget: float | None,
    seeds: Sequence[int],
    workers: int,
    out: Path,
    as_json: bool = False,
) -> int:
    """Run `nni-s3d compare`: run what is missing, print the tables, write the files, say where they are.

    Raises:
        S3DError: the comparison would be none, or its files cannot be written.
    """
    frames, failed = [], False
    if configs:
        if budget is None:
            raise ConfigError("--budget: expected MACs of training for every strategy, such as 12G, got none")
        planned = plan(configs, seeds, budget, out)
        check_runs(planned)
        failed = carry_out(planned, workers)
        for run in (run for run in planned if run.done and not run.rows()):
            print(f"{run.label}, seed {run.seed}: left out: the budget pays for no network of it", file=sys.stderr)
        frames.append(pd.DataFrame([row for run in planned for row in run.rows()], columns=list(COLUMNS)))
    if ids:
        frames.append(collected(ids, budget))
    if not frames:
        raise ConfigError("compare: expected experiment files, or --ids of experiments, got none")
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        raise ReportError("compare: expected a finished trial, got none")
    rows = best_first(rows)
    _show(rows, as_json)
    for path in write_files(rows, out):
        print(path, file=sys.stderr if as_json else sys.stdout)
    return 1 if failed else 0


def plan(configs: Sequence[Path], seeds: Sequence[int], budget: float, out: Path) -> list[Run]:
    """Return a run for every file and seed.

    Raises:
        ConfigError: a file is not what it should be, or two have the same name.
    """
    labels = [config.stem for config in configs]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"compare: expected files of different names, got two called {label}.yml")
    files = [read_file(config) for config in configs]
    return [Run(file.path.stem, file, seed, budget, out) for seed in seeds for file in files]


def carry_out(planned: Sequence[Run], workers: int) -> bool:
    """Run what is not done, with the time that is left on a terminal; return whether anything has failed."""
    budget, failed = planned[0].budget, False
    settings = {"unit": "MAC", "unit_scale": True, "desc": "compare", "disable": None}
    with _quiet(), tqdm(total=budget * len(planned), initial=_spent(planned), **settings) as bar:

        def look() -> None:
            bar.update(_spent(planned) - bar.n)

        missing = [run for run in planned if not run.done]
        for run, error in in_processes(missing, workers, Run.carry_out, look):
            look()
            if error is not None:
                failed = True
                reason = str(error) if isinstance(error, S3DError) else f"{type(error).__name__}: {error}"
                tqdm.write(f"{run.label}, seed {run.seed}: failed: {reason}", file=sys.stderr)
    return failed


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the logs of trials: of many at once they tell no story."""
    logger = logging.getLogger("nni_s3d")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _spent(planned: Sequence[Run]) -> float:
    """Return what has been spent, or will not be."""
    return sum(
        run.budget if run.done else max((row["search_macs"] for row in run.rows()), default=0) for run in planned
    )


def _show(rows: pd.DataFrame, as_json: bool) -> None:
    if as_json:
        print(json.dumps(per_seed(rows).to_dict("records")))
    else:
        print(summary(rows), dominance(rows), sep="\n\n", end="\n\n")


def write_files(rows: pd.DataFrame, out: Path) -> list[Path]:
    """Write the trials, the seeds and the figure, and return the paths.

    Raises:
        ReportError: the folder cannot be written to.
    """
    paths = [out / "trials.csv", out / "seeds.csv", out / "compare.png"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(paths[0], index=False, float_format="%.15g")
        per_seed(rows).to_csv(paths[1], index=False, float_format="%.6g")
        draw(rows, paths[2])
    except OSError as error:
        raise ReportError(f"{out}: expected a folder to write to, got: {error}") from error
    return paths
