"""Make a smaller comparison of a folder of experiment files: fewer images, narrower networks, shorter phases.

python benchmarks/reduced_configs.py configs/fashion_mnist runs/fashion_mnist --samples 6000 --widest 32 --shorter 2
nni-s3d compare runs/fashion_mnist/*.yml --budget 228G --seeds 0 1 2 --workers 2
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml


def reduced_task(task: dict[str, Any], samples: int, shorter: int) -> dict[str, Any]:
    """Return a task with fewer images and epochs, on one thread, and with its search space beside it."""
    training = {**task["training"], "epochs": task["training"]["epochs"] // shorter}
    data = {**task["data"], "samples": samples}
    return {**task, "data": data, "training": training, "threads": 1, "search_space": "search_space.json"}


def reduced_experiment(experiment: dict[str, Any], shorter: int) -> dict[str, Any]:
    """Return an experiment whose phases are shorter."""
    settings = dict(experiment["tuner"].get("classArgs", {}))
    if isinstance(settings.get("epochs"), int):
        settings["epochs"] //= shorter
    tuner = {**experiment["tuner"], "classArgs": settings}
    return {**experiment, "searchSpaceFile": "search_space.json", "tuner": tuner}


def main(arguments: list[str] | None = None) -> None:
    """Write the reduced folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("--samples", type=int, required=True, help="images of training and validation")
    parser.add_argument("--widest", type=int, required=True, help="upper end of every width")
    parser.add_argument("--shorter", type=int, default=1, help="divides all numbers of epochs")
    args = parser.parse_args(arguments)

    args.to.mkdir(parents=True)
    for path in sorted(args.configs.glob("*.yml")):
        content = yaml.safe_load(path.read_text())
        if path.stem.startswith("task"):
            space = json.loads((path.parent / content["search_space"]).read_text())
            content = reduced_task(content, args.samples, args.shorter)
        else:
            content = reduced_experiment(content, args.shorter)
        (args.to / path.name).write_text(yaml.safe_dump(content, sort_keys=False))
    for width in space.values():
        width["_value"][1] = args.widest
    (args.to / "search_space.json").write_text(json.dumps(space, indent=4) + "\n")


if __name__ == "__main__":
    main()
