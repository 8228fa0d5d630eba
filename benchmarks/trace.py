"""How long `trace` takes, in units of what Torch-Pruning takes for its dependency graph and all its groups.

    python benchmarks/trace.py [--models resnet50 ...] [--turns 5]

Both look for the channels that must change together, in the same run on the same network: random weights, one image of
64 x 64 pixels, evaluation mode, one thread. `trace` also splits some neurons of every group in a copy of the network
and compares its outputs. The two take turns; the medians count. The last row is a network in which half of the groups
are refused, in units of what `trace` takes for the first one. Needs the extra `peers`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch_pruning
import torchvision
from torch import nn

import nni_s3d as s3d

MODELS = ("resnet50", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "densenet121")
REFUSED = "shufflenet_v2_x0_5"
IMAGE = 64


def torch_pruning_groups(model: nn.Module, inputs: torch.Tensor) -> None:
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=inputs)
    list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, IMAGE, IMAGE)


def medians(programs: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the median wall time of every program in seconds; a first turn is not counted."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(turns + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(of_program[1:]) for name, of_program in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--turns", type=int, default=5)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'model':20}{'trace':>10}{'Torch-Pruning':>16}{'ratio':>8}")
    for name in parsed.models:
        model, inputs = built(name)
        seconds = medians(
            {
                "ours": lambda model=model, inputs=inputs: s3d.trace(model, inputs),
                "theirs": lambda model=model, inputs=inputs: torch_pruning_groups(model, inputs),
            },
            parsed.turns,
        )
        ours, theirs = seconds["ours"], seconds["theirs"]
        print(f"{name:20}{ours:8.2f} s{theirs:14.2f} s{ours / theirs:8.2f}", flush=True)
    print(f"\n{'model':20}{'trace':>10}{MODELS[0]:>16}{'ratio':>8}")
    networks = {name: built(name) for name in (REFUSED, MODELS[0])}
    seconds = medians({n: lambda pair=pair: s3d.trace(*pair) for n, pair in networks.items()}, parsed.turns)
    refused, plain = seconds[REFUSED], seconds[MODELS[0]]
    print(f"{REFUSED:20}{refused:8.2f} s{plain:14.2f} s{refused / plain:8.2f}", flush=True)


if __name__ == "__main__":
    main()
