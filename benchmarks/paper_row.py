"""The paper's row on CIFAR-100 (Table 1, Figure 3): MobileNetV1 grown in five steps of 160 epochs each.

    python benchmarks/paper_row.py [--out runs/paper_row] [--seconds 600] [--methods NAME ...] [--smoke]

The methods are configs, run in this process without NNI: S3D and S2D with the settings of the paper, and S3D with those
of this package. "scratch" trains the last network of the paper's S3D from new weights, for as many MACs as all its
steps have cost. When the time is over, everything stays where it is, and the next call with the same folder goes on
from the last epoch. FOLDER/cifar100.csv and .json have a row for every network that is done. --smoke does the same
with one epoch a step on the digits.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nni_s3d.search import trial
from nni_s3d.search.experiment import Experiment, read_experiment, run
from nni_s3d.search.spec import Spec, widths_of
from nni_s3d.search.store import Store

CONFIGS = {"S3D, paper": "s3d_paper", "S2D, paper": "s2d_paper", "S3D": "s3d"}
SCRATCH, MODEL = "scratch", "S3D, paper"  # from whose widths and cost
COLUMNS = ["method", "step", "params", "macs", "accuracy", "test_accuracy", "train_macs", "total_train_macs", "widths"]


class _TimeIsOver(BaseException):
    """Not an error of a trial, which would be noted as its end."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Leave the block when the time is over, wherever it is: what it does is safe against being killed."""

    def stop(*_: object) -> None:
        raise _TimeIsOver

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeIsOver:
        print("the time is over; call again to go on", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def experiment_of(method: str, smoke: bool) -> Experiment:
    experiment = read_experiment(Path("configs", "digits" if smoke else "cifar100", f"{CONFIGS[method]}.yml"))
    if not smoke:
        return experiment
    return replace(experiment, lineages=[replace(one, steps=2, epochs=1) for one in experiment.lineages])


def grown(method: str, out: Path, smoke: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for every step of a method."""
    total = 0.0
    for parameters, metrics in run(experiment_of(method, smoke), Store(str(out / CONFIGS[method]))):
        if metrics is not None:
            total += metrics["train_macs"]
            yield row(method, metrics, total, widths_of(parameters))


def scratch(rows: list[dict[str, Any]], out: Path, smoke: bool) -> Iterator[dict[str, Any]]:
    """Yield the row of the last network of `MODEL`, trained from new weights for as much as that has cost."""
    experiment = experiment_of(MODEL, smoke)
    steps = [one for one in rows if one["method"] == MODEL]
    if len(steps) <= experiment.lineages[0].steps:
        return
    last, task = steps[-1], experiment.task
    data = task.load_data()
    epochs = max(1, round(last["total_train_macs"] / (3 * last["macs"] * len(data.train))))
    task = replace(task, training=task.training.lasting(epochs))
    metrics = trial.run(Spec(last["widths"]).to_parameters(), task, Store(str(out / SCRATCH)))
    yield row(SCRATCH, metrics, metrics["train_macs"], last["widths"])


def row(method: str, metrics: dict[str, float], total: float, widths: dict[str, int]) -> dict[str, Any]:
    found = {"method": method, "accuracy": metrics["default"], "total_train_macs": total, "widths": widths}
    return found | {name: metrics[name] for name in COLUMNS if name in metrics}


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the rows under temporary names, and rename them."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    with (out / "cifar100.csv.tmp").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**one, "widths": json.dumps(one["widths"])} for one in rows)
    (out / "cifar100.json.tmp").write_text(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}))
    for name in ("cifar100.csv", "cifar100.json"):
        (out / f"{name}.tmp").replace(out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/paper_row"))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--methods", nargs="+", choices=[*CONFIGS, SCRATCH], default=[*CONFIGS, SCRATCH])
    parser.add_argument("--smoke", action="store_true")
    parsed = parser.parse_args()
    parsed.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with at_most(parsed.seconds):
        for method in parsed.methods:
            found = (
                scratch(rows, parsed.out, parsed.smoke)
                if method == SCRATCH
                else grown(method, parsed.out, parsed.smoke)
            )
            for one in found:
                rows.append(one)
                write(rows, parsed.out)
                print(*(f"{name}: {one[name]}" for name in COLUMNS[:-1]), sep="  ", flush=True)


if __name__ == "__main__":
    main()
