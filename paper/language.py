"""A language instead of images: the MLPs of a small transformer over characters are grown, on real text.

    python -m paper.language [--mlps gated plain] [--methods NAME ...] [--seeds 0 1 2] [--rates 0.001 0.003]
                             [--steps 800] [--workers 2] [--seconds 600] [--out runs/language] [--only-print]

The text is the help on Python's language topics (paper/text.py). A transformer of 4 blocks of width 128 begins with 64
neurons in every MLP and is grown in three steps, by 0.6 of all neurons each. "scratch" has even MLPs of the last size
from the start. All methods spend as many MACs as --steps steps of that network: 10, 15, 25 and 50% of them at the four
sizes. Measuring is charged. The rate rises for 2% of the MACs, stays, and falls to zero over the last 15%. AdamW's
state goes on through a growth step; that of the copies begins with zeros.

Every method takes the rate that is best for it on the validation text, over all seeds. OUT/language.csv has all rows,
in bits per character. An interrupted run goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nni_s3d.search.store import Store
from nni_s3d.search.workers import in_processes
from paper.compare import at_most
from paper.small_transformer import MLPS
from paper.tables import write
from paper.transformer_run import COLUMNS, METHODS, Job, Run


def carry_out(job: Job, out: Path) -> None:
    """Carry out a run; one that is done is done."""
    store = Store(str(out))
    if not store.exists(f"{job.folder}/rows.json"):
        Run(job, store).carry_out()


def collected(jobs: Iterable[Job], out: Path) -> list[dict[str, Any]]:
    """Return the rows of all runs that are done."""
    found = (Store(str(out)).read_json(f"{job.folder}/rows.json", "rows") for job in jobs)
    return [row for content in found if content for row in content["rows"]]


def table(rows: list[dict[str, Any]]) -> str:
    """Return every method at its best rate, in Markdown: bits per character of the last network, and its parameters."""
    lines = ["| MLP | method | rate | seeds | parameters (M) | test (bits per character) |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    last = list({(row["mlp"], row["method"], row["rate"], row["seed"]): row for row in rows}.values())
    for mlp, method in dict.fromkeys((row["mlp"], row["method"]) for row in last):
        of_rate: dict[float, list[dict[str, Any]]] = {}
        for row in last:
            if (row["mlp"], row["method"]) == (mlp, method):
                of_rate.setdefault(row["rate"], []).append(row)
        rate = min(of_rate, key=lambda rate: statistics.mean(row["validation"] for row in of_rate[rate]))
        losses = [row["test"] for row in of_rate[rate]]
        spread = f" ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else ""
        params = statistics.mean(row["params"] for row in of_rate[rate]) / 1e6
        cells = (mlp, method, f"{rate:g}", f"{len(losses)}", f"{params:.3f}", f"{statistics.mean(losses):.3f}{spread}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mlps", nargs="+", choices=list(MLPS), default=list(MLPS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.003])
    parser.add_argument("--steps", type=int, default=800, help="of the largest network that the budget pays")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="stop after so many; 0: never")
    parser.add_argument("--out", type=Path, default=Path("runs/language"))
    parser.add_argument("--only-print", action="store_true")
    parsed = parser.parse_args(arguments)
    parts = (parsed.seeds, parsed.mlps, parsed.methods, parsed.rates)
    jobs = [Job(mlp, method, rate, seed, parsed.steps) for seed, mlp, method, rate in product(*parts)]
    if not parsed.only_print:
        parsed.out.mkdir(parents=True, exist_ok=True)
        with at_most(parsed.seconds), tqdm(total=len(jobs), unit="run", file=sys.stderr) as bar:
            for job, error in in_processes(jobs, parsed.workers, partial(carry_out, out=parsed.out)):
                bar.update()
                if error is not None:
                    tqdm.write(f"{job.folder}: {type(error).__name__}: {error}", file=sys.stderr)
    rows = collected(jobs, parsed.out)
    write(rows, parsed.out / "language.csv", COLUMNS)
    print(table(rows))


if __name__ == "__main__":
    main()
