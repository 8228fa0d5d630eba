"""Growing: S3D, S2D, random splits, new neurons. The trials are those of `nni-s3d grow`."""

from __future__ import annotations

from collections.abc import Iterator

from nni_s3d.config import build
from nni_s3d.search.experiment import Experiment, run
from nni_s3d.search.lineage import Lineage
from nni_s3d.search.spec import widths_of
from paper.bench import Bench, Row


def grow(bench: Bench) -> Iterator[Row]:
    """Grow the seed network and yield every step.

    With the target "params" or "macs", every step takes what gains most for its cost (Appendix C.1) within what the
    reference has after the same step.
    """
    settings = bench.growth | bench.method.settings | {"seed": bench.job.seed}
    if bench.job.target != "own":
        budget = [row[bench.job.target] for row in bench.reference[1:]]
        settings |= {"policy": {"name": "knapsack", "budget": budget, "cost": bench.job.target}, "steps": len(budget)}
    lineage = build(Lineage, settings, f"{bench.job.method}: settings")
    metrics = None
    for parameters, metrics in run(Experiment(bench.task, bench.task.space(), [lineage]), bench.store):
        if metrics is not None:  # else it is tried again, or the lineage has ended
            bench.spent += int(metrics["train_macs"])
            yield bench.entry(metrics, int(metrics["step"]), widths_of(parameters))
    if metrics is None:
        raise RuntimeError("a trial has failed; see above")
