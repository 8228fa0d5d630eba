"""Figure 2 of the paper: S2D gets stuck on a one-dimensional RBF network, signed splittings do not.

    python -m paper.rbf_toy [--seeds 0 1 2 3 4 5 6 7] [--neurons 15] [--iterations 10000] [--out reports/rbf_toy]

Every run starts with one neuron and splits one neuron per phase. A phase takes (m - 1) * iterations full-batch steps of
Adam, so that networks of one size have been trained for one number of steps. Prints the final losses and writes
rbf_toy.csv (all runs and seeds) and rbf_toy.png: losses of all seeds in panels (a) and (b), (c) and (d) for the first.
An interrupted run goes on with the seed that it was at; the first one is always run, for its panels.

Signed binary splittings stay stuck on some seeds: they keep splitting positively, for tiny gains, and the loss does not
move. The cure is `Rescue`: after a phase in vain the next split is a quartet, which gains most of all (Theorem 2.3) and
moves copies along both ends of the spectrum. Where no phase is in vain it changes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

import nni_s3d as s3d
from nni_s3d.models import rbf

TARGET_NEURONS, POINTS, RANGE = 15, 1000, 5.0
PARAMETERS = 3  # of a neuron
LEARNING_RATE = 0.005
EPSILON = 0.01
_IN_VAIN = 0.01  # a phase that lowers the loss by less than this fraction
SHOWN_EPSILON = 0.1  # of the curves in panel (d), where 0.01 could not be seen
BLUE, ORANGE, GREEN, PINK, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"


@dataclass(frozen=True)
class Method:
    """One line of a panel."""

    name: str  # says what differs within its panel
    copies: int
    c: float
    color: str
    rescue: int | None = None  # copies of the next split after a phase in vain


S2D = Method("S2D", 2, 1.0, ORANGE)
BINARY = Method("m = 2, c = 3", 2, 3.0, BLUE)
RESCUED = Method("m = 2, rescued by 4", 2, 3.0, "#E69F00", rescue=4)
BY_COPIES = [S2D, BINARY, RESCUED, Method("m = 3, c = 3", 3, 3.0, GREEN), Method("m = 4, c = 3", 4, 3.0, PINK)]
BY_C = [S2D, Method("m = 2, c = 1.3", 2, 1.3, "#56B4E9"), BINARY, Method("m = 2, c = 5", 2, 5.0, BLACK)]


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
        m = min(self.copies if in_vain else 2, room + 1)
        if m > 1:
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


def run(method: Method, seed: int, neurons: int, iterations: int, triplet: str) -> list[s3d.GrowthStep]:
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
    own = {"copies": copies, "c": method.c, "triplet": triplet, "policy": rescue or s3d.TopK(1)}
    as_in_the_paper = {"epsilon": EPSILON, "relative": False, "shrink": 1.0, "perturb": 0.0}
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
            "gain": None if (plan := _plan(step)) is None else plan.gain,
        }
        for step in steps
    ]


def _plan(step: s3d.GrowthStep) -> s3d.GrowthPlan | None:
    return None if step.decision is None else step.decision.plan


def plot(runs: dict[Method, list[s3d.GrowthStep]], seed: int, frame: pd.DataFrame, path: Path) -> None:
    """Draw the four panels: the losses of all seeds, the rest of one seed's runs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 8.5), layout="constrained")
    _losses(axes[0, 0], frame, BY_COPIES, "(a) number of copies, c = 3")
    _losses(axes[0, 1], frame, BY_C, "(b) binary splittings, by c")
    _mark_first_difference(axes[0, 1], runs, frame)
    _curves(axes[1, 0], {method: runs[method] for method in BY_COPIES}, seed)
    _choice(axes[1, 1], runs[BINARY], seed)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _losses(axis, frame: pd.DataFrame, methods: list[Method], title: str) -> None:
    """Draw the median of all seeds; the band is from the first to the third quartile.

    A run that ended early, since nothing gained any more, keeps its loss.
    """
    for method in methods:
        own = frame[frame["method"] == method.name]
        losses = own.pivot(index="neurons", columns="seed", values="loss").ffill()
        low, middle, high = (losses.quantile(q, axis=1) for q in (0.25, 0.5, 0.75))
        axis.semilogy(middle.index, middle, marker="o", markersize=4, color=method.color, label=method.name)
        axis.fill_between(middle.index, low, high, color=method.color, alpha=0.15, linewidth=0)
    axis.set(title=title, xlabel="neurons", ylabel="training loss at the end of the phase")
    axis.legend()


def _mark_first_difference(axis, runs: dict[Method, list[s3d.GrowthStep]], frame: pd.DataFrame) -> None:
    """Put a triangle where signed splitting first does something that S2D would not do, with the seed of `runs`."""
    for method in BY_C[1:]:
        step = _first_difference(runs[method])
        if step is not None:
            neurons = step.widths["neurons"]
            height = frame[(frame["method"] == method.name) & (frame["neurons"] == neurons)]["loss"].median()
            axis.plot(neurons, height, "^", markersize=11, color=method.color)


def _first_difference(steps: list[s3d.GrowthStep]) -> s3d.GrowthStep | None:
    return next((s for s in steps if (p := _plan(s)) is not None and bool(p.weights["neurons"].min() < 0)), None)


def _curves(axis, runs: dict[Method, list[s3d.GrowthStep]], seed: int) -> None:
    inputs, targets, _ = problem(seed)
    order = inputs[:, 0].argsort()
    axis.plot(inputs[order, 0], targets[order, 0], color="0.6", linewidth=5, label="target")
    for method, steps in runs.items():
        step = min(steps, key=lambda s: (abs(s.widths["neurons"] - 5), s.step))
        with torch.no_grad():
            fitted = step.model(inputs)
        label = f"{method.name}, {step.widths['neurons']} neuron" + "s" * (step.widths["neurons"] > 1)
        axis.plot(inputs[order, 0], fitted[order, 0], color=method.color, label=label)
    axis.set(title="(c) fitted curves at about five neurons", xlabel="x", ylabel="f(x)")
    axis.legend()


def _choice(axis, steps: list[s3d.GrowthStep], seed: int) -> None:
    """Show the spectra where the two methods first choose differently, and what they choose."""
    step = _first_difference(steps) or steps[-2]
    inputs, targets, _ = problem(seed)
    order = inputs[:, 0].argsort()
    theta, spectrum = step.model[0], step.decision.evidence["neurons"]
    centers = (-theta.bias / theta.weight[:, 0]).detach().numpy()
    axis.bar(centers, spectrum.lambda_max.numpy(), width=0.18, color=BLUE, label="lambda_max")
    axis.bar(centers, spectrum.lambda_min.numpy(), width=0.18, color=ORANGE, label="lambda_min")
    low, high = min(float(spectrum.lambda_min.min()), 0), max(float(spectrum.lambda_max.max()), 0)
    curves = axis.twinx()
    curves.plot(inputs[order, 0], targets[order, 0], color="0.75", linewidth=4, label="target")
    graph = s3d.trace(step.model, inputs)
    for name, c, color in (("S3D", 3.0, BLUE), ("S2D", 1.0, ORANGE)):
        plan = s3d.select(step.decision.evidence, graph, s3d.TopK(1), 2, c=c)
        if not plan.neurons:
            continue
        chosen = int(plan.copies["neurons"].argmax())
        negative = bool(plan.weights["neurons"].min() < 0)
        tip = float((spectrum.lambda_max if negative else spectrum.lambda_min)[chosen])
        place = (float(centers[chosen]), tip + (0.25 if tip > 0 else -0.25) * (high - low))
        arrow = {"arrowstyle": "->", "color": color}
        axis.annotate(
            f"{name} splits", (float(centers[chosen]), tip), place, color=color, ha="center", arrowprops=arrow
        )
        grown = s3d.split(step.model, graph, plan, epsilon=SHOWN_EPSILON).model
        with torch.no_grad():
            curves.plot(inputs[order, 0], grown(inputs)[order, 0], "--", color=color, label=f"after {name}")
    axis.set(
        title=f"(d) what is split next at width {step.widths['neurons']}, m = 2",
        xlabel="centre of the neuron, x",
        ylabel="eigenvalue",
    )
    axis.set(xlim=(-RANGE, RANGE), ylim=(low - 0.4 * (high - low), high + 0.6 * (high - low)))
    curves.set_ylabel(f"f(x), split with epsilon = {SHOWN_EPSILON}")
    handles = [*axis.get_legend_handles_labels()[0], *curves.get_legend_handles_labels()[0]]
    axis.legend(handles=handles, fontsize=8, ncols=2)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--neurons", type=int, default=TARGET_NEURONS, help="stop at this size")
    parser.add_argument("--iterations", type=int, default=10_000, help="steps of Adam per phase and new neuron")
    parser.add_argument("--triplet", choices=["optimal", "paper"], default="optimal")
    parser.add_argument("--out", type=Path, default=Path("reports/rbf_toy"))
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parsed.out.mkdir(parents=True, exist_ok=True)
    methods = list(dict.fromkeys([*BY_COPIES, *BY_C]))
    first: dict[Method, list[s3d.GrowthStep]] = {}
    frames = []
    for seed in parsed.seeds:
        kept = parsed.out / f"seed_{seed}_{parsed.neurons}_{parsed.iterations}_{parsed.triplet}.csv"
        if kept.exists() and seed != parsed.seeds[0]:
            frames.append(pd.read_csv(kept))
            continue
        table: list[dict[str, object]] = []
        for method in tqdm(methods, desc=f"seed {seed}", disable=None, leave=False):
            steps = run(method, seed, parsed.neurons, parsed.iterations, parsed.triplet)
            table += rows(method, seed, parsed.iterations, steps)
            if seed == parsed.seeds[0]:
                first[method] = steps
        frames.append(pd.DataFrame(table))
        frames[-1].to_csv(kept, index=False)
        last = frames[-1].groupby("method", sort=False).last()
        print(f"seed {seed}\n{last[['copies', 'c', 'neurons', 'loss']].to_string()}", flush=True)
    frame = pd.concat(frames)
    frame.to_csv(parsed.out / "rbf_toy.csv", index=False)
    plot(first, parsed.seeds[0], frame, parsed.out / "rbf_toy.png")
    print(f"{parsed.out / 'rbf_toy.csv'}\n{parsed.out / 'rbf_toy.png'}")


if __name__ == "__main__":
    main()
