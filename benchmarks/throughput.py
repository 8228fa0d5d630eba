"""How fast the parametric phase is, in units of a bare PyTorch loop on the same network and data.

    python benchmarks/throughput.py [--json] [--tasks configs/digits/task.yml ...] [--batches 20] [--repeats 5]

The bare loop takes shuffled batches out of one tensor of images, normalised beforehand and never augmented, and has no
schedule, progress bar or checkpoint; images and filters lie in memory as in the phase. "same batches" is this loop over
the augmented batches of the phase. All train the seed network of the task. Then come the phase with an option the other
way round, in units of the phase as it is, and the bare loop in bfloat16, compiled, and (on a GPU) as CUDA graphs, in
units of the bare loop; compilation, before the first turn, is not counted. The programs take turns; medians of the
ratios within a turn count. On a GPU, "over its kernels" is the time of the phase over that of the kernels that it
runs, which is its floor: what is above 1 is waiting for the processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from nni_s3d.tasks.data import DataSet
from nni_s3d.tasks.task import Task, read_task
from nni_s3d.tasks.training import train

EPOCHS = 3
TASKS = [f"configs/{name}/task.yml" for name in ("digits", "fashion_mnist", "cifar100")]


def seed_network(task: Task, data: DataSet) -> nn.Module:
    return task.build_model(task.space().low, 0, data.shape).train()


def bare(
    task: Task, data: DataSet, compiled: str = "", bfloat16: bool = False, same_batches: bool = False
) -> Callable[[], None]:
    """Return some epochs of the loop that anybody would write first; `compiled` is a mode of `torch.compile`."""
    device, recipe, model = task.torch_device, task.training, seed_network(task, data)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=recipe.memory_format)
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (data.mean, data.std))
    images = ((data.train.pixels.float() / 255 - mean) / std).to(device, memory_format=recipe.memory_format)
    labels = data.train.labels.to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )

    run = torch.compile(model, mode=compiled) if compiled else model

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if same_batches:
            for inputs, targets in task.training_loader(data, 0).epoch(epoch):
                yield inputs.contiguous(memory_format=recipe.memory_format), targets
        else:
            for index in torch.randperm(len(images), device=device).split(recipe.batch_size):
                yield images[index], labels[index]

    def epochs() -> None:
        for epoch in range(EPOCHS):
            for inputs, targets in batches(epoch):
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    loss = F.cross_entropy(run(inputs), targets)
                loss.backward()
                optimizer.step()

    return epochs


def phase(task: Task, data: DataSet, **changes: object) -> Callable[[], None]:
    """Return a parametric phase of the same length."""
    model, recipe = seed_network(task, data), replace(task.training, epochs=EPOCHS, warmup_epochs=0.0, **changes)
    return lambda: train(model, task.training_loader(data, 0), recipe) and None


def steps_of(task: Task, data: DataSet) -> int:
    return EPOCHS * len(task.training_loader(data, 0))


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def kernel_seconds(run: Callable[[], None]) -> float:
    """Return how long the kernels of a program take on the GPU, all together."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        seconds(run)
    return sum(event.self_device_time_total for event in seen.key_averages()) / 1e6


def measure(path: str, batches: int, repeats: int) -> dict[str, object]:
    task = read_task(Path(path))
    data = task.load_data()
    data = replace(data, train=data.train[torch.arange(min(len(data.train), batches * task.training.batch_size))])
    other = not task.training.channels_last
    programs = {
        "bare": bare(task, data),
        "same batches": bare(task, data, same_batches=True),
        "phase": phase(task, data),
        f"channels_last: {other}".lower(): phase(task, data, channels_last=other),
    }
    loops = {"bare, bfloat16": bare(task, data, bfloat16=True), "bare, compiled": bare(task, data, "default")}
    if torch.cuda.is_available():
        programs[f"amp: {not task.training.amp}".lower()] = phase(task, data, amp=not task.training.amp)
        loops["bare, CUDA graphs"] = bare(task, data, "reduce-overhead")
    programs |= loops
    turns: list[dict[str, float]] = []
    for _ in range(repeats + 1):
        turns.append({name: seconds(run) for name, run in programs.items()})
    row: dict[str, object] = {"task": path}
    row |= {f"phase / {name}": _ratio(turns[1:], "phase", name) for name in ("bare", "same batches")}
    row |= {f"{name}, / phase": _ratio(turns[1:], name, "phase") for name in programs if ":" in name}
    if torch.cuda.is_available():
        row["phase, ms a step"] = 1000 * statistics.median(turn["phase"] for turn in turns[1:]) / steps_of(task, data)
        row["phase over its kernels"] = statistics.median(
            seconds(programs["phase"]) / kernel_seconds(programs["phase"]) for _ in range(repeats)
        )
    return row | {f"{name}, / bare": _ratio(turns[1:], name, "bare") for name in loops}


def _ratio(turns: list[dict[str, float]], a: str, b: str) -> float:
    return statistics.median(turn[a] / turn[b] for turn in turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--batches", type=int, default=20, help="in an epoch, at most")
    parser.add_argument("--repeats", type=int, default=5)
    parsed = parser.parse_args()
    rows = [measure(path, parsed.batches, parsed.repeats) for path in parsed.tasks]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    if parsed.json:
        print(json.dumps({"device": device, "rows": rows}))
        return
    print(device)
    for row in rows:
        print("".join(f"{key}: {value if isinstance(value, str) else f'{value:.3f}'}   " for key, value in row.items()))


if __name__ == "__main__":
    main()
