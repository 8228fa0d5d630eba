"""What growing pays: the accuracy at four sizes, against networks that cost as much in training.

    python benchmarks/growth_pays.py [--config benchmarks/growth_pays.yml] [--csv benchmarks/results/growth_pays.csv]
                                     [--works NAME ...] [--methods NAME ...] [--seeds 0 1 ...] [--workers 2]
                                     [--only-print] [--overview METHOD] [--json]

A work is a data set and a backbone (NNI_S3D_DATA says where the data sets are). The reference method grows its seed
network to three larger sizes, in parameters, with a phase of some epochs at each. Everybody else is granted what this
has cost in all, in MACs of forward passes, backward passes (twice as many) and what measuring takes, rounded up to
whole epochs. Every method takes the learning rate that is best for it on the validation sets of all seeds. Rows are
appended to the CSV file as runs end, and runs that are there already, with the same settings, are not repeated; with
nothing left to do, this prints the table; a run that fails is reported and left out. "front" is the mean over the
sizes; "behind" is the front of the reference minus that of the method, seed by seed, since growing methods begin with
the same trained seed network; it is in bold where it is clear: where the mean is more than two standard deviations.
--overview prints one row a method instead: by how many points its front is ahead of that of one method, for every work,
over the sizes that this one has.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from growth_ways import Bench, Run, Study, carry_out

from nni_s3d.config import build, read_yaml


@dataclass
class Results:
    """The rows of a CSV file that come from the settings of a study; others are left alone."""

    path: Path
    rows: list[dict[str, str]]

    @classmethod
    def read(cls, path: Path, study: Study) -> Results:
        rows = list(csv.DictReader(path.open())) if path.exists() else []
        current = {study.digest(work, method) for work in study.works for method in study.methods}
        return cls(path, [row for row in rows if row["settings"] in current])

    def add(self, rows: list[dict[str, object]]) -> None:
        """Append rows; an older file may lack columns that are empty here."""
        new = not self.path.exists()
        columns = list(rows[0]) if new else next(csv.reader(self.path.open()))
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            if new:
                writer.writeheader()
            for row in rows:
                writer.writerow({key: value for key, value in row.items() if key in columns or value is not None})
        self.rows += [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]

    def of(self, **values: object) -> list[dict[str, str]]:
        return [row for row in self.rows if all(row[key] == str(value) for key, value in values.items())]

    def best_rate(self, study: Study, work: str, method: str) -> float | None:
        """Return the learning rate of the best fronts on the validation sets of all seeds; None if it is open."""
        found: dict[float, list[float]] = {rate: [] for rate in study.rates}
        for rate, seed in itertools.product(study.rates, study.seeds):
            rows = self.of(work=work, method=method, rate=rate, seed=seed)
            if not rows:
                return None
            found[rate] += front(rows, len(study.sizes), "validation").values()
        return max(found, key=lambda rate: statistics.mean(found[rate]))


def front(rows: list[dict[str, str]], sizes: int, key: str) -> dict[int, float]:
    """Return the accuracy at every size: of the network that is best on the validation set, and no larger.

    Of equal ones it is the smaller.
    """
    found = {}
    for size in range(sizes):
        smaller = [row for row in rows if int(row["size"]) <= size]
        if smaller:
            found[size] = float(max(smaller, key=lambda row: (float(row["validation"]), -int(row["size"])))[key])
    return found


def ready(
    study: Study, results: Results, works: list[str], methods: list[str], failed: Collection[Run] = ()
) -> list[Bench]:
    """Return the runs that can be carried out now: nobody has yet, and what they depend on is there."""
    found = []
    for work, method, rate, seed in itertools.product(works, methods, study.rates, study.seeds):
        run = Run(work, method, rate, seed, study.digest(work, method))
        if run not in failed and not results.of(work=work, method=method, rate=rate, seed=seed):
            bench = prepared(study, results, run)
            found += [bench] if bench else []
    return found


def prepared(study: Study, results: Results, run: Run) -> Bench | None:
    """Return a run with what it must know of others, or None as long as these are missing."""
    bench = Bench(study, run)
    if run.method == study.reference:
        return bench
    needed = [study.reference, bench.method.widths_of or study.reference]
    rates = [results.best_rate(study, run.work, name) for name in needed]
    known = [results.of(work=run.work, method=m, rate=r, seed=run.seed) for m, r in zip(needed, rates, strict=True)]
    if not all(known):
        return None
    bench.budgets = [int(row["total_macs"]) for row in known[0]]
    bench.widths = [json.loads(row["widths"]) for row in known[1]] if bench.method.widths_of else []
    return bench


def fronts(study: Study, results: Results, work: str, method: str, key: str) -> dict[int, dict[int, float]]:
    """Return the fronts of a method at its learning rate, by seed."""
    rate = results.best_rate(study, work, method)
    runs = {seed: results.of(work=work, method=method, rate=rate, seed=seed) for seed in study.seeds}
    return {seed: front(rows, len(study.sizes), key) for seed, rows in runs.items() if rows}


def behind(study: Study, results: Results, work: str, method: str, leader: str, first: int = 0) -> list[float]:
    """Return by how many points a method is below another one, over the sizes that this has from one on, by seed."""
    own, other = (fronts(study, results, work, name, "test") for name in (method, leader))
    sizes = [size for size in range(first, len(study.sizes)) if all(size in front for front in other.values())]
    both = [seed for seed in own if seed in other and all(size in own[seed] for size in sizes)]
    return [100 * statistics.mean(other[s][size] - own[s][size] for size in sizes) for s in both]


def is_clear(distances: list[float]) -> bool:
    """Whether the mean distance is more than two standard deviations."""
    return len(distances) > 1 and abs(statistics.mean(distances)) > 2 * statistics.stdev(distances)


def table(study: Study, results: Results, works: list[str], methods: list[str]) -> list[dict[str, object]]:
    """Return a row for every work and method: test accuracy in percent at every size, mean and deviation."""
    rows: list[dict[str, object]] = []
    for work, method in itertools.product(works, methods):
        found = list(fronts(study, results, work, method, "test").values())
        if not found:
            continue
        rate = results.best_rate(study, work, method)
        row: dict[str, object] = {"work": work, "method": method, "rate": rate, "seeds": len(found)}
        for size, factor in enumerate(study.sizes):
            row[f"x {factor:g}"] = spread([100 * f[size] for f in found if size in f])
        row["front"] = spread([100 * statistics.mean(f.values()) for f in found if len(f) == len(study.sizes)])
        for name, first in (("behind", 0), (f"behind at x {study.sizes[-1]:g}", len(study.sizes) - 1)):
            leader = study.reference
            row[name] = marked([] if method == leader else behind(study, results, work, method, leader, first))
        rows.append(row)
    return rows


def overview(study: Study, results: Results, works: list[str], methods: list[str], other: str) -> list[dict[str, str]]:
    """Return a row for every method: by how many points its fronts are ahead of those of another one, in full."""
    rows = []
    for method in (other, *(m for m in methods if m != other)):
        row = {"method": method}
        for work in works:
            found = fronts(study, results, work, method, "test").values()
            own = [100 * statistics.mean(f.values()) for f in found]
            ahead = [-x for x in behind(study, results, work, method, other)]
            row[work] = spread(own) if method == other else marked(ahead, "+")
        if any(row[work] for work in works):
            rows.append(row)
    return rows


def spread(values: list[float], digits: int = 1, sign: str = "-") -> str:
    """Return mean and deviation; with the sign "+" the mean has one in any case."""
    found = [f"{statistics.mean(values):{sign}.{digits}f}"] if values else []
    if len(values) > 1:
        found.append(f"{statistics.stdev(values):.{digits}f}")
    return " ± ".join(found)


def marked(distances: list[float], sign: str = "-") -> str:
    """Return mean and deviation of distances, in bold where they are clear."""
    return f"**{spread(distances, sign=sign)}**" if is_clear(distances) else spread(distances, sign=sign)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_pays.yml"))
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/growth_pays.csv"))
    parser.add_argument("--works", nargs="+")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, help="others than those of the config")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-print", action="store_true", help="print what has been found and run nothing")
    parser.add_argument("--overview", metavar="METHOD", help="print distances from this method alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), parsed.config)
    study = replace(study, seeds=parsed.seeds or study.seeds)
    results = Results.read(parsed.csv, study)
    works, methods = parsed.works or list(study.works), parsed.methods or list(study.methods)
    with ProcessPoolExecutor(parsed.workers, get_context("spawn")) as pool:
        failed: set[Run] = set()
        while not parsed.only_print and (benches := ready(study, results, works, methods, failed)):
            futures = {pool.submit(carry_out, bench): bench.run for bench in benches}
            for future in as_completed(futures):
                run, error = futures[future], future.exception()
                if error is None:
                    results.add(future.result())
                else:
                    failed.add(run)
                print(*asdict(run).values(), error or "", file=sys.stderr, flush=True)
    rows = (
        overview(study, results, works, methods, parsed.overview)
        if parsed.overview
        else table(study, results, works, methods)
    )
    if parsed.json:
        print(json.dumps({"rows": rows}))
        return
    if rows:  # Markdown
        marks = {key: "---" if key in ("work", "method") else "---:" for key in rows[0]}
        for row in ({key: key for key in rows[0]}, marks, *rows):
            print("|", " | ".join(map(str, row.values())), "|")


if __name__ == "__main__":
    main()
