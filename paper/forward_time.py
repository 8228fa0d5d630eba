"""How long the last network of every method takes for a batch, as in the paper's Table 3.

    python -m paper.forward_time paper/modelnet40.yml --scale small [--out runs/modelnet40/small] [--batch 16]

Reads what paper.compare has left. All networks are timed in turns, many rounds, so that a busy machine slows them
alike; the table has the median, how often that is the median of the first network, and what the paper has. Writes
OUT/forward_time.csv, and OUT/forward_time.png with the test accuracy over the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nni_s3d.errors import ConfigError, S3DError
from paper.bench import Bench, Row
from paper.compare import collected
from paper.files import write
from paper.settings import Scale, Study, read_study
from paper.tables import last, networks

COLUMNS = ("method", "accuracy", "milliseconds", "relative", "paper_milliseconds")
HEADINGS = ("method", "accuracy (%)", "forward (ms)", "relative", "paper: forward (ms)")


def built(study: Study, scale: Scale, out: Path, seed: int) -> dict[str, tuple[nn.Module, Bench]]:
    """Return the last network of every method that is done, as published, with new weights.

    Raises:
        ConfigError: none is done.
    """
    jobs = study.jobs(None, ["own"], [seed])
    rows, found = collected(study, scale, [seed], out), {}
    for job in jobs:
        for row in last(networks(study, rows, job.method, "own")):
            bench = Bench(study, scale, job, out)
            found[job.method] = bench.build(json.loads(row["widths"])).eval(), bench
    if not found:
        raise ConfigError(f"out: expected what paper.compare has left in {out}, got nothing")
    return found


def medians(models: dict[str, nn.Module], batch: Tensor, rounds: int) -> dict[str, float]:
    """Return the median time of every network in milliseconds; they run in turns."""
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for number in tqdm(range(rounds + 1), desc="rounds", disable=None):
            for name, model in models.items():
                begun = time.perf_counter()
                model(batch)
                if batch.is_cuda:
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    times[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(of_model) for name, of_model in times.items()}


def row(name: str, time: float, times: dict[str, float], bench: Bench) -> Row:
    """Return the row of a method: its time, beside that of the first one and that of the paper."""
    published = bench.method.published[-1].get("forward") if bench.method.published else None
    accuracy = 100 * bench.rows()[-1]["test_accuracy"]
    return dict(zip(COLUMNS, (name, accuracy, time, time / next(iter(times.values())), published), strict=True))


def plot(rows: list[Row], path: Path) -> None:
    """Draw the test accuracy over the time of a batch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for of_method in rows:
        at = of_method["milliseconds"], of_method["accuracy"]
        axis.plot(*at, "o")
        axis.annotate(of_method["method"], at, textcoords="offset points", xytext=(6, 4), fontsize="small")
    axis.set(xscale="log", xlabel="forward (ms)", ylabel="test accuracy (%)")
    axis.margins(x=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--scale", default="paper")
    parser.add_argument("--out", type=Path, help="by default runs/STUDY/SCALE")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args(arguments)
    try:
        study = read_study(parsed.study)
        out = parsed.out or Path("runs", parsed.study.stem, parsed.scale)
        found = built(study, study.scale(parsed.scale), out, parsed.seed)
    except S3DError as error:
        sys.exit(f"error: {error}")
    _, bench = next(iter(found.values()))
    batch = torch.randn(parsed.batch, *bench.data.shape, device=bench.task.torch_device)
    times = medians({name: model for name, (model, _) in found.items()}, batch, parsed.rounds)
    rows = [row(name, time, times, found[name][1]) for name, time in times.items()]
    write(rows, out / "forward_time.csv", COLUMNS)
    print(f"| {' | '.join(HEADINGS)} |\n| --- |{' ---: |' * (len(HEADINGS) - 1)}")
    for of_method in rows:
        shown = (f"{of_method[name]:.3g}" if of_method[name] else "" for name in COLUMNS[1:])
        print(f"| {of_method['method']} | {' | '.join(shown)} |")
    if find_spec("matplotlib"):
        plot(rows, out / "forward_time.png")


if __name__ == "__main__":
    main()
