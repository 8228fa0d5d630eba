"""Run a study, such as the paper's Table 1: every method, to every target, on every seed.

    python -m paper.compare paper/cifar100.yml --scale small [--out runs/cifar100/small] [--workers 2]
                            [--methods NAME ...] [--targets own params macs cost] [--seeds 0 1 ...]
                            [--seconds 600] [--records FILE] [--only-print]
    torchrun --standalone --nproc-per-node 4 -m paper.compare paper/imagenet.yml

The study names its methods and its scales; "paper" is the scale of the paper. The folder OUT has the networks,
table.csv with a row for every network, and figure.png. What is done is not repeated: when a run was interrupted, or its
seconds are over, the same command goes on from the last epoch; only a search of AMC begins anew. A method that fails is
reported and left out. With --records, what is done is also kept in a small file; what is there is not run again, even
without the folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from nni_s3d.errors import ConfigError, S3DError, StoreError
from nni_s3d.search.preflight import try_step
from nni_s3d.search.workers import in_processes
from nni_s3d.tasks import ranks
from nni_s3d.tasks.together import together
from paper.bench import Bench, Row
from paper.growth import grow
from paper.morphnet import morphnet
from paper.pruning import prune
from paper.records import record, restore
from paper.settings import TARGETS, Job, Scale, Study, read_study
from paper.tables import draw, show, write_study
from paper.time_limit import at_most
from paper.widths import even, scratch


def amc(bench: Bench) -> Iterator[Row]:
    """AMC, which alone needs stable-baselines3."""
    from paper.amc import amc

    return amc(bench)


WAYS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "grow": grow,
    "scratch": scratch,
    "widths": even,
    "prune": prune,
    "morphnet": morphnet,
    "amc": amc,
}


def carry_out(study: Study, scale: Scale, job: Job, out: Path) -> None:
    """Carry out one job, and keep its rows; one that is done is done."""
    bench = Bench(study, scale, job, out)
    if bench.rows():
        return
    rows: list[Row] = []
    for row in WAYS[bench.method.kind](bench):
        rows.append(row)
        bench.keep(rows, done=False)
    bench.keep(rows, done=True)


def run(study: Study, scale: Scale, jobs: list[Job], out: Path, workers: int, records: Path | None) -> None:
    """Carry out jobs, those that others build on first, and write the table, and the records, after each."""
    left = [job for job in jobs if not is_done(study, scale, job, out)]
    check(study, scale, left, out)
    first = [job for job in left if job.target == "own" and study.is_first(job.method)]
    others = [job for job in left if job not in first]
    with tqdm(total=len(jobs), initial=len(jobs) - len(left), unit="run", file=sys.stderr) as bar:
        for job, error in chain.from_iterable(
            in_processes(part, workers, partial(carry_out, study, scale, out=out)) for part in (first, others)
        ):
            bar.update()
            if error is not None and ranks.world_size() > 1:  # the others cannot know of it: torchrun ends them
                raise error
            if error is not None:
                tqdm.write(f"{job.folder}: {type(error).__name__}: {error}", file=sys.stderr)
            save(study, scale, jobs, out, records)


def check(study: Study, scale: Scale, jobs: list[Job], out: Path) -> None:
    """Load the data of every task and take its smallest network through a step, before anything is trained.

    Raises:
        S3DError: the data or the network is not what it should be.
    """
    of_tasks = {study.methods[job.method].task: job for job in jobs}
    for bench in (Bench(study, scale, job, out) for job in of_tasks.values()):
        model = bench.build(bench.task.space().low)
        try_step(model, bench.task.training_loader(bench.data, bench.job.seed), bench.data.num_classes)


def is_done(study: Study, scale: Scale, job: Job, out: Path) -> bool:
    """Whether a job has all its rows, from these settings."""
    with suppress(StoreError):  # what it would be compared with is not done
        return bool(Bench(study, scale, job, out).rows())
    return False


def save(study: Study, scale: Scale, jobs: list[Job], out: Path, records: Path | None) -> None:
    """Write the table of all that is there, and the records of all seeds of some jobs."""
    seeds = {*scale.seeds, *(job.seed for job in jobs)}
    write_study(study, collected(study, scale, seeds, out, unfinished=True), out / "table.csv")
    if records is not None:
        record(records, benches(study, scale, jobs, out))


def benches(study: Study, scale: Scale, jobs: Iterable[Job], out: Path) -> Iterator[Bench]:
    """Return all benches that the seeds of some jobs have, in the order in which they build on each other."""
    return (Bench(study, scale, job, out) for job in study.jobs(None, TARGETS, sorted({job.seed for job in jobs})))


def collected(study: Study, scale: Scale, seeds: Iterable[int], out: Path, unfinished: bool = False) -> list[Row]:
    """Return the rows of all jobs that are done, in earlier calls, too; or also those of jobs that are not."""
    found = []
    for job in study.jobs(None, TARGETS, sorted(seeds)):
        with suppress(StoreError):  # what it would be compared with is not done
            found += Bench(study, scale, job, out).rows(unfinished)
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--scale", default="paper", help="one of those in the study")
    parser.add_argument("--out", type=Path, help="by default runs/STUDY/SCALE")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", help="by default all")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--seeds", type=int, nargs="+", help="by default those of the scale")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so many; 0: never")
    parser.add_argument("--records", type=Path, help="a file that keeps what is done")
    parser.add_argument("--only-print", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run a study and print its tables."""
    parsed = parse(arguments)
    try:
        study = read_study(parsed.study)
        scale = study.scale(parsed.scale)
        together(study.scaled_task(scale), lambda: run_and_show(study, scale, parsed))
    except S3DError as error:
        sys.exit(f"error: {error}")


def run_and_show(study: Study, scale: Scale, parsed: argparse.Namespace) -> None:
    """Run a study as the command line asks, in the first process of torchrun, if there are several, and print it."""
    out = parsed.out or Path("runs", parsed.study.stem, parsed.scale)
    jobs = study.jobs(parsed.methods, parsed.targets, parsed.seeds or scale.seeds)
    if ranks.world_size() > 1:
        check_torchrun(study, jobs, parsed)
    if parsed.records is not None:
        restore(parsed.records, benches(study, scale, jobs, out))
    if not parsed.only_print:
        with at_most(parsed.seconds):
            run(study, scale, jobs, out, parsed.workers, parsed.records)
    save(study, scale, jobs, out, parsed.records)
    rows = collected(study, scale, parsed.seeds or scale.seeds, out)
    print(show(study, rows))
    if find_spec("matplotlib"):
        draw(study, rows, out / "figure.png")


def check_torchrun(study: Study, jobs: Iterable[Job], parsed: argparse.Namespace) -> None:
    """Refuse what the other processes of torchrun cannot take part in.

    Raises:
        ConfigError: there is a time limit, there are workers beside them, or a method has a task of its own.
    """
    if parsed.seconds or parsed.workers > 1:
        option = "seconds 0" if parsed.seconds else "workers 1"
        raise ConfigError(f"expected --{option} with torchrun, whose processes wait for each other")
    for job in jobs:
        if study.methods[job.method].task is not None:
            raise ConfigError(f"methods: expected some that share the study's task with torchrun, got {job.method!r}")


if __name__ == "__main__":
    main()
