"""Who survives the tournaments that growth_pays.py has carried out.

    python benchmarks/survivors.py [--config benchmarks/growth_pays.yml] [--csv benchmarks/results/growth_pays.csv]

For every work and method, at its learning rate and summed over seeds and sizes: how many newcomers of each kind have
survived, and how predicted gain and importance go together among splits (Spearman's rank correlation, mean and
deviation of the tournaments). Their shares would all be alike if the kind of a newcomer did not matter.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from pathlib import Path

from growth_pays import Results, spread
from growth_ways import Study

from nni_s3d.config import build, read_yaml


def survival(rows: list[dict[str, str]]) -> dict[str, tuple[int, int]]:
    """Return how many of each kind have survived, of how many, in all rows together."""
    counts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in rows:
        for kind, count in json.loads(row["survived"]).items():
            counts[kind].append(count)
    return {kind: tuple(map(sum, zip(*of_kind, strict=True))) for kind, of_kind in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_pays.yml"))
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/growth_pays.csv"))
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), parsed.config)
    results = Results.read(parsed.csv, study)
    print("| work | method | kind | survived | share | gain ~ importance |\n| --- | --- | --- | ---: | ---: | ---: |")
    for work, method in itertools.product(study.works, study.methods):
        rate = results.best_rate(study, work, method)
        rows = [row for row in results.of(work=work, method=method, rate=rate) if row.get("survived")]
        correlations = [float(row["gain_importance"]) for row in rows if row["gain_importance"]]
        correlation = spread(correlations, 2)
        for kind, (left, entrants) in survival(rows).items():
            print(f"| {work} | {method} | {kind} | {left} of {entrants} | {left / entrants:.0%} | {correlation} |")


if __name__ == "__main__":
    main()
