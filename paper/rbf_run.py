"""The runs of paper.rbf_toy: how a network of radial basis functions is grown, and the rule that rescues it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.models import rbf

TARGET_NEURONS, POINTS, RANGE = 15, 1000, 5.0
PARAMETERS = 3  # of a neuron
LEARNING_RATE = 0.005
EPSILON = 0.01
_IN_VAIN = 0.01  # a phase that lowers the loss by less than this fraction
BLUE, ORANGE, GREEN, PINK, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"


@dataclass(frozen=True)
class Method:
    """One line of a panel."""

    name: str  # says what differs within its panel
    copies: int
    c: float
    color: str
    rescue: int | None = None  # copies of the next split after a phase in vain
    triplet: str = "optimal"


S2D = Method("S2D", 2, 1.0, ORANGE)
BINARY = Method("m = 2, c = 3", 2, 3.0, BLUE)
RESCUED = Method("m = 2, rescued by 4", 2, 3.0, "#E69F00", rescue=4)
TRIPLET, QUARTET = Method("m = 3, c = 3", 3, 3.0, GREEN), Method("m = 4, c = 3", 4, 3.0, PINK)
PUBLISHED_TRIPLET = Method("m = 3, Theorem 2.2", 3, 3.0, "#999933", triplet="paper")
BY_COPIES = [S2D, BINARY, RESCUED, TRIPLET, PUBLISHED_TRIPLET, QUARTET]
BY_C = [S2D, Method("m = 2, c = 1.3", 2, 1.3, "#56B4E9"), BINARY, Method("m = 2, c = 5", 2, 5.0, BLACK)]
METHODS = list(dict.fromkeys([*BY_COPIES, *BY_C]))


class Rescue:
    """A policy: split the neuron of largest gain in two, or into more copies after a phase in vain.

    Args:
        copies: after a phase in vain.
        neurons: of the network at most.
    """

    def __init__(self, copies: int, neurons: int) -> None:
        self.copies, self.neurons = copies, neurons
        self.losses: list[float] = []  # at the end of every phase

    def choose(self, candidates: Any) -> Tensor:
        """Return the copies of every channel."""
        in_vain = len(self.losses) > 1 and self.losses[-1] > (1 - _IN_VAIN) * self.losses[-2]
        copies = torch.ones(candidates.graph.num_channels, dtype=torch.int64)
        room = self.neurons - candidates.graph.widths["neurons"]
        m = self.copies if in_vain and self.copies <= room + 1 else 2
        if room:
            copies[candidates.gains[candidates.choices.index(m)].argmin()] = m
        return copies


def problem(seed: int) -> tuple[Tensor, Tensor, nn.Module]:
    """Return inputs (points, 1), targets (points, 1) and the one-neuron network that everybody starts from."""
    torch.manual_seed(seed)
    target = rbf((TARGET_NEURONS,)).double()
    inputs = (torch.rand(POINTS, 1, dtype=torch.float64) * 2 - 1) * RANGE
    return inputs, target(inputs).detach(), rbf((1,)).double()


def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return half the mean squared error."""
    return ((outputs - targets) ** 2).mean() / 2


def run(method: Method, seed: int, neurons: int, iterations: int) -> list[s3d.GrowthStep]:
    """Grow a network until it has this many neurons, and return its steps.

    A phase has `iterations` steps of Adam for every neuron that the split before it has added.
    """
    inputs, targets, model = problem(seed)
    rescue = None if method.rescue is None else Rescue(method.rescue, neurons)
    sizes = [1]

    def train(network: nn.Module) -> float:
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
        sizes.append(sum(parameter.numel() for parameter in network.parameters()) // PARAMETERS)
        for _ in range(max(method.copies - 1, sizes[-1] - sizes[-2]) * iterations):
            optimizer.zero_grad()
            loss_fn(network(inputs), targets).backward()
            optimizer.step()
        loss = loss_fn(network(inputs), targets).item()
        if rescue is not None:
            rescue.losses.append(loss)
        return loss

    steps = (neurons - 1) // (method.copies - 1)
    copies = method.copies if method.rescue is None else [method.copies, method.rescue]
    own: dict[str, Any] = {"copies": copies, "c": method.c, "triplet": method.triplet, "policy": rescue or s3d.TopK(1)}
    as_in_the_paper: dict[str, Any] = {"epsilon": EPSILON, "relative": False, "shrink": 1.0, "perturb": 0.0}
    settings = {**own, **as_in_the_paper, "solver": "exact"}
    return list(s3d.grow(model, inputs, train, [(inputs, targets)], loss_fn, steps=steps, **settings))


def rows(method: Method, seed: int, iterations: int, steps: list[s3d.GrowthStep]) -> list[dict[str, object]]:
    """Return one row of the CSV file per step."""
    return [
        {
            "seed": seed,
            "method": method.name,
            "copies": method.copies,
            "c": method.c,
            "step": step.step,
            "neurons": step.widths["neurons"],
            "iterations": iterations * (step.widths["neurons"] + method.copies - 2),
            "loss": step.trained,
            "gain": None if (plan := plan_of(step)) is None else plan.gain,
        }
        for step in steps
    ]


def plan_of(step: s3d.GrowthStep) -> s3d.GrowthPlan | None:
    return None if step.decision is None else step.decision.plan
