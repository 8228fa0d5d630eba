"""How long an experiment waits for its next trial, in units of what cannot be avoided.

    python benchmarks/start_up.py [--json] [--task configs/digits/task.yml] [--repeats 5]
    python benchmarks/start_up.py --nni [--json] [--config configs/digits/s3d.yml] [--steps 4] [--port 8080]

The floor is a process that imports PyTorch and reads the data set. A trial imports NNI too, builds and traces the
network and takes a batch through it. The two are timed in turns; the medians count.

--nni runs an experiment and measures what a user waits for: from the last line of a trial to the first training step of
the next one, with NNI's own part. The floor is timed before and after it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import yaml

from nni_s3d.report.follow import follow

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
# The trial command of an experiment that notes when training begins, and when a trial has done its work.
STAMPED = """
import sys, time
from nni_s3d.tasks import training
from nni_s3d.plugin import trial

def stamp(what):
    with open({stamps!r}, "a") as file:
        print(what, time.time(), file=file)

def stamped(*arguments, original=training._epoch):
    if not stamped.begun:
        stamp("begin")
        stamped.begun = True
    return original(*arguments)

stamped.begun = False
training._epoch = stamped
code = trial.main(sys.argv[1:])
stamp("end")
sys.exit(code)
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


def of_processes(task: str, repeats: int) -> dict[str, object]:
    """Time the floor and a trial's first part in turns."""
    programs = {"floor": FLOOR.format(task=task), "trial": TRIAL.format(task=task)}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            times[name].append(seconds(program))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"task": task, **medians, "trial / floor": medians["trial"] / medians["floor"]}


def of_experiment(config: Path, steps: int, port: int) -> dict[str, object]:
    """Run an experiment and time the gaps between its trials."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(config.parent, folder / "config")
        content = yaml.safe_load(config.read_text())
        content["searchSpaceFile"] = str((config.parent / content["searchSpaceFile"]).resolve())
        content["tuner"]["classArgs"]["steps"] = steps
        script, stamps = folder / "stamped.py", folder / "stamps"
        script.write_text(STAMPED.format(stamps=str(stamps)))
        task = yaml.safe_load((config.parent / "task.yml").read_text())
        task["search_space"] = content["searchSpaceFile"]
        (folder / "config" / "task.yml").write_text(yaml.safe_dump(task))
        content["trialCommand"] = f"{sys.executable} {script} task.yml"
        path = folder / "config" / config.name
        path.write_text(yaml.safe_dump(content))
        floor = [seconds(FLOOR.format(task=str(folder / "config" / "task.yml"))) for _ in range(2)]
        said = subprocess.run(
            ["nnictl", "create", "--config", str(path), "--port", str(port)], capture_output=True, text=True, check=True
        ).stdout
        experiment = re.search(r"nnictl stop (\w+)", said)
        assert experiment, said
        try:
            follow(experiment[1])
        finally:
            subprocess.run(["nnictl", "stop", experiment[1]], capture_output=True, check=False)
        floor += [seconds(FLOOR.format(task=str(folder / "config" / "task.yml"))) for _ in range(2)]
        moments = [line.split() for line in stamps.read_text().splitlines()]
    gaps = [float(b[1]) - float(a[1]) for a, b in pairwise(moments) if (a[0], b[0]) == ("end", "begin")]
    row = {"floor": statistics.median(floor), "gap": statistics.median(gaps), "gaps": len(gaps)}
    return {"config": str(config), **row, "gap / floor": row["gap"] / row["floor"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--task", default="configs/digits/task.yml")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nni", action="store_true", help="run an experiment under NNI")
    parser.add_argument("--config", type=Path, default=Path("configs/digits/s3d.yml"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--port", type=int, default=8080)
    parsed = parser.parse_args()
    if parsed.nni:
        row = of_experiment(parsed.config, parsed.steps, parsed.port)
    else:
        row = of_processes(parsed.task, parsed.repeats)
    print(json.dumps(row) if parsed.json else "\n".join(f"{key:16}{value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
