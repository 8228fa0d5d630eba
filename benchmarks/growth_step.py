"""What a growth step costs, as a share of the parametric phase that it follows.

    python benchmarks/growth_step.py [--json] [--experiments configs/digits/s3d.yml ...] [--batches 60]

The seed network of an experiment is trained for some batches, which gives the seconds of a batch; the first phase is
extrapolated from them to its epochs. Then the network grows as it does between two trials: measuring, selection, plan
and weights into the store, and in the next trial out of it again, trace, surgery, and a batch taken through what came
out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.growth_step import decide
from nni_s3d.growth.surgery.split import split
from nni_s3d.search.experiment import read_experiment
from nni_s3d.search.preflight import check_network
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_tensors, write_tensors
from nni_s3d.tasks.training import train

EXPERIMENTS = [f"configs/{task}/{strategy}.yml" for task in ("digits", "cifar100") for strategy in ("s3d_paper", "s3d")]


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    into[name] = time.perf_counter() - start


def measure(path: str, batches: int) -> dict[str, object]:
    experiment = read_experiment(Path(path))
    task, lineage = experiment.task, experiment.lineages[0]
    epochs = lineage.epochs or task.training.epochs
    data = task.load_data()
    model = task.build_model(task.space().low, 0, data.shape)
    per_epoch = len(task.training_loader(data, 0))
    some = dataclasses.replace(
        data, train=data.train[torch.arange(min(len(data.train), 10 * task.training.batch_size))]
    )
    loader, times = task.training_loader(some, 0), []
    recipe = dataclasses.replace(task.training, epochs=1, warmup_epochs=0.0)
    for _ in range(max(3, batches // len(loader))):
        start = time.perf_counter()
        train(model, loader, recipe)
        times.append((time.perf_counter() - start) / len(loader))
    phase = statistics.median(times[1:]) * per_epoch * epochs
    parts: dict[str, float] = {}
    model.eval()
    graph = s3d.trace(model, task.example(data.shape))
    with timed(parts, "measuring and selection"):
        decision = decide(model, graph, lineage, list(task.curvature_loader(data, 0)), F.cross_entropy)
    assert decision.plan is not None
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        with timed(parts, "store"):
            write_tensors(store, "weights.safetensors", model.state_dict())
            write_tensors(store, "plan.safetensors", decision.plan.to_tensors())
            model.load_state_dict(read_tensors(store, "weights.safetensors") or {})
            read_tensors(store, "plan.safetensors")
    with timed(parts, "surgery"):
        seen = read_graph(model, task.example(data.shape)).refuse_others(decision.plan.copies, "refused before")
        grown = split(model, seen, decision.plan, lineage.epsilon)
    with timed(parts, "look at the grown network"):
        check_network(task, data, grown.model, grown.widths, graph=grown.graph)
    shares = {f"{name}, of the phase": seconds / phase for name, seconds in parts.items()}
    whole = {"growth step, of the phase": sum(parts.values()) / phase, "phase in seconds, extrapolated": phase}
    told = {"experiment": path, "method": lineage.method, "epochs of the phase": epochs, "passes": decision.passes}
    return told | shares | whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--experiments", nargs="+", default=EXPERIMENTS)
    parser.add_argument("--batches", type=int, default=60)
    parsed = parser.parse_args()
    rows = [measure(path, parsed.batches) for path in parsed.experiments]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    if parsed.json:
        print(json.dumps({"device": device, "rows": rows}))
        return
    print(device)
    for key in rows[0]:
        cells = (row[key] if isinstance(row[key], str) else f"{row[key]:.4g}" for row in rows)
        print(f"{key:40}" + "".join(f"{cell:>32}" for cell in cells))


if __name__ == "__main__":
    main()
