"""How long a trial takes from its command to the first training step, in units of what cannot be avoided.

    python benchmarks/start_up.py [--json] [--task configs/digits/task.yml] [--repeats 5]

The floor is a process that imports PyTorch and reads the data set. A trial imports NNI too, builds and traces the
network and takes a batch through it. The two are timed in turns; the medians count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

FLOOR = """
import torch
from pathlib import Path
from nni_s3d.tasks.task import read_task

read_task(Path({task!r})).load_data()
"""
# NNI hands a trial its parameters through files of its own; here they come from the search space.
TRIAL = """
import sys, nni
from pathlib import Path
from nni_s3d.tasks import training
from nni_s3d.plugin import trial
from nni_s3d.tasks.task import read_task

def first_step(*_): sys.exit(0)

nni.get_next_parameter = lambda: dict(read_task(Path({task!r})).space().low)
training._epoch = first_step
trial.main([{task!r}])
sys.exit(1)
"""


def seconds(program: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            env={**os.environ, "NNI_S3D_STORE": folder},
        )
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--task", default="configs/digits/task.yml")
    parser.add_argument("--repeats", type=int, default=5)
    parsed = parser.parse_args()
    programs = {"floor": FLOOR.format(task=parsed.task), "trial": TRIAL.format(task=parsed.task)}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(parsed.repeats):
        for name, program in programs.items():
            times[name].append(seconds(program))
    medians = {name: statistics.median(found) for name, found in times.items()}
    row = {"task": parsed.task, **medians, "trial / floor": medians["trial"] / medians["floor"]}
    print(json.dumps(row) if parsed.json else "\n".join(f"{key:16}{value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
