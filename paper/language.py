"""A language instead of images: the MLPs of a small transformer over characters are grown, on real text.

    python -m paper.language [--mlps gated plain] [--methods NAME ...] [--seeds 0 1 2] [--rates 0.001 0.003]
                             [--steps 800] [--workers 2] [--seconds 600] [--out runs/language] [--only-print]

The text is the help on Python's language topics (paper/text.py). A transformer of 4 blocks of width 128 begins with 64
neurons in every MLP and is grown in three steps, by 0.6 of all neurons each. "scratch" has even MLPs of the last size
from the start. All methods spend as many MACs as --steps steps of that network: 10, 15, 25 and 50% of them at the four
sizes. Measuring is charged. The rate rises for 2% of the MACs, stays, and falls to zero over the last 15%. AdamW's
state goes on through a growth step; that of the copies begins with zeros.

Every method takes the rate that is best for it on the validation text, over all seeds. OUT/language.csv has all rows,
in bits per character, and OUT/language.png shows the last ones. An interrupted run goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nni_s3d.search.store import Store
from nni_s3d.search.workers import in_processes
from paper.files import write
from paper.small_transformer import MLPS
from paper.time_limit import at_most
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
    for (mlp, method), found in best(rows).items():
        losses = [row["test"] for row in found]
        spread = f" ± {statistics.stdev(losses):.3f}" if len(losses) > 1 else ""
        params = statistics.mean(row["params"] for row in found) / 1e6
        rate, mean = found[0]["rate"], statistics.mean(losses)
        cells = (mlp, method, f"{rate:g}", f"{len(losses)}", f"{params:.3f}", f"{mean:.3f}{spread}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def best(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the last networks of every (MLP, method) at the rate that is best on the validation text.

    Only rates of which the most seeds are done are compared: an easy seed would favour its rate.
    """
    last = {(row["mlp"], row["method"], row["rate"], row["seed"]): row for row in rows}
    of_rates: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for (mlp, method, rate, _), row in last.items():
        of_rates.setdefault((mlp, method), {}).setdefault(rate, []).append(row)
    return {name: _best_of(list(of_rate.values())) for name, of_rate in of_rates.items()}


def _best_of(of_rate: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    most = max(map(len, of_rate))
    whole = [found for found in of_rate if len(found) == most]
    return min(whole, key=lambda found: statistics.mean(row["validation"] for row in found))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the test loss of the last networks, a panel for each kind of MLP, a point for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = best(rows)
    kinds = list(dict.fromkeys(mlp for mlp, _ in found))
    figure, axes = plt.subplots(1, len(kinds), figsize=(6 * len(kinds), 4), layout="constrained", squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        of_method = {method: networks for (mlp, method), networks in found.items() if mlp == kind}
        for place, networks in enumerate(of_method.values()):
            losses = [row["test"] for row in networks]
            axis.plot(losses, [place] * len(losses), "o", alpha=0.5)
            axis.plot(statistics.mean(losses), place, "k|", markersize=18)
        axis.set_yticks(range(len(of_method)), of_method)
        axis.invert_yaxis()
        axis.set(xlabel="test text (bits per character)", title=f"{kind} MLPs")
        axis.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


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
    if rows and find_spec("matplotlib"):
        draw(rows, parsed.out / "language.png")


if __name__ == "__main__":
    main()
