"""Section 3 of the paper: what Lemma 3.2, Theorem 3.4 and Theorem B.1 promise, and what happens.

    python -m paper.theory [--seeds 0 1 2] [--dimension 3] [--target 0.5] [--out reports/theory]

Algorithm 1 grows a network of one hidden layer that meets Assumptions 3.1 and 3.3, with c = 3, until the loss is below
the target, a part of the first loss: by triplets and quartets from one neuron, and by binary splits from as many
neurons as Theorem B.1 wants. Each runs by splits alone, and with gradient descent on theta between them. Lemma 3.2 is
checked for every neuron at every step. Prints a row for every run and writes theory.csv (every step) and theory.png. An
interrupted run goes on with the seed that it was at.

The inputs are orthonormal and the activation is t^2 / 2 + (cos t - 1) / 4. Then lambda_X is 1 / d^2, |sigma''| is never
below h = 3/4, and the third derivatives are bounded, so that everything in the bounds is known.
"""

from __future__ import annotations

import argparse
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

import nni_s3d as s3d
from paper.files import write
from paper.rbf_run import loss_fn
from paper.theory_figure import NAMES, plot

C, H, STEEPEST = 3.0, 0.75, 1.25  # of the splits; the least and the largest sigma''


class Bowl(nn.Module):
    """sigma(t) = t^2 / 2 + (cos t - 1) / 4, with sigma'' between 3/4 and 5/4."""

    def forward(self, t: Tensor) -> Tensor:
        """Apply sigma to every element."""
        return t * t / 2 + (torch.cos(t) - 1) / 4


def network(theta: Tensor) -> nn.Sequential:
    """Return f(x) = sum_i w_i sigma(theta_i^T x) for theta (neurons, d), with all w_i = 1 (eq. 13)."""
    hidden, output = nn.Linear(theta.shape[1], len(theta), bias=False), nn.Linear(len(theta), 1, bias=False)
    model = nn.Sequential(OrderedDict(neurons=hidden, sigma=Bowl(), output=output)).double()
    with torch.no_grad():
        hidden.weight.copy_(theta)
        output.weight.fill_(1.0)
    return model


@dataclass(frozen=True)
class Problem:
    """Data, and the numbers of the assumptions."""

    inputs: Tensor  # (d, d), orthonormal
    targets: Tensor  # (d, 1)
    first: float  # the loss of the network that growth starts from
    eta: float  # the loss to reach

    @classmethod
    def draw(cls, seed: int, dimension: int, target: float) -> Problem:
        """Return random data; `target` is eta in units of the first loss."""
        generator = torch.Generator().manual_seed(seed)
        square = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
        inputs, targets = torch.linalg.qr(square).Q, torch.randn(dimension, 1, generator=generator, dtype=torch.float64)
        first = float(loss_fn(torch.zeros_like(targets), targets))  # of all theta = 0, nearly
        return cls(inputs, targets, first, target * first)

    @property
    def alpha(self) -> float:
        """Return n / (d h^2 lambda_X) of Lemma 3.2; n is d, and lambda_X is 1 / d^2."""
        return (len(self.inputs) / H) ** 2

    @property
    def rho(self) -> float:
        """Return rho_0, which the spectrum radius of a neuron that may be split has at least."""
        return math.sqrt(self.eta / self.alpha)

    def epsilon(self, copies: int, largest: float) -> float:
        """Return the longest split for which terms of third order take no more than half of the gain (Assumption 3.3).

        Along a split the derivatives of the output are at most 5/4 c w t, 5/4 c w and c w / 4, for output weights up
        to w = `largest`. So the rest of the Taylor series is at most (a epsilon + b) epsilon^3.
        """
        a = 3 * (STEEPEST * C * largest) ** 2 / 24
        b = math.sqrt(2 * self.first) * C * largest / 4 / 6
        return (math.sqrt(b * b + a * kappa(copies) * self.rho) - b) / (2 * a)

    def descent(self, copies: int, largest: float) -> float:
        """Return by how much every split lowers the loss at least."""
        return self.epsilon(copies, largest) ** 2 * kappa(copies) * self.rho / 4

    def bound(self, copies: int, largest: float) -> int:
        """Return T, the largest number of splits of Theorem 3.4 and Theorem B.1."""
        return math.ceil((self.first - self.eta) / self.descent(copies, largest))


def kappa(copies: int) -> float:
    """Return kappa_m: the gain of an optimal split is kappa_m rho at least (eq. 12)."""
    return (C - 1) / (C + 1) if copies == 2 else (C - 1) / 2


def grow(problem: Problem, copies: int, training: int, largest: float) -> Iterator[dict[str, float]]:
    """Yield what is there before every split, and at the end.

    Args:
        problem: the data and the target.
        copies: of every split.
        training: steps of gradient descent on theta after every split.
        largest: the output weight of every neuron that is split, at most.
    """
    x, y = problem.inputs, problem.targets
    epsilon, bound = problem.epsilon(copies, largest), problem.bound(copies, largest)
    # theta = 0 is a stationary point, which gradient descent does not leave.
    model: nn.Module = network(torch.zeros(bound if copies == 2 else 1, len(x), dtype=torch.float64))
    for step in range(bound + 1):
        graph = s3d.trace(model, x)
        spectrum = s3d.spectrum(s3d.SplittingOperator(model, graph, [(x, y)], loss_fn), "exact")
        w, loss = model.get_parameter("output.weight")[0].detach(), float(loss_fn(model(x), y).detach())
        radius = torch.maximum(spectrum["neurons"].lambda_min.abs(), spectrum["neurons"].lambda_max.abs())
        promised = problem.first - step * problem.descent(copies, largest)
        row = {"step": step, "neurons": len(w), "loss": loss, "bound": promised, "splits at most": bound}
        row["lemma"] = tightest(problem, loss, radius / w)
        may = (w.abs() >= 1) & (radius >= problem.rho)
        if loss <= problem.eta or not may.any():
            yield row
            return
        may &= w.abs() == w[may].abs().min()  # a larger output weight would call for shorter splits
        plan = s3d.select({"neurons": only(spectrum["neurons"], may)}, graph, s3d.TopK(1), copies, c=C)
        yield row | {"weight": float(w[may][0].abs()), "gain": plan.gain}
        model = s3d.split(model, graph, plan, epsilon).model
        descend(model, x, y, training)


def tightest(problem: Problem, loss: float, ratios: Tensor) -> float:
    """Return by how much the closest neuron meets Lemma 3.2: the left side over the right one, at most 1."""
    return 2 * loss / (problem.alpha * float((ratios**2).min()))


def only(spectrum: s3d.Spectrum, mask: Tensor) -> s3d.Spectrum:
    """Return a spectrum of which all other neurons gain nothing."""
    return replace(spectrum, lambda_min=spectrum.lambda_min * mask, lambda_max=spectrum.lambda_max * mask)


def descend(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    """Move theta downhill; a step that raised the loss would be taken back and halved."""
    theta, rate = model.get_parameter("neurons.weight"), 1.0
    for _ in range(steps):
        loss = loss_fn(model(x), y)
        (slope,) = torch.autograd.grad(loss, theta)
        before = theta.detach().clone()
        while rate > 1e-12:
            with torch.no_grad():
                theta.copy_(before - rate * slope)
                if loss_fn(model(x), y) <= loss:
                    break
                theta.copy_(before)
            rate /= 2


def run(problem: Problem, copies: int, training: int) -> list[dict[str, float]]:
    """Grow, with splits short enough for the output weights that are met."""
    largest = 1.0
    while True:
        steps = list(grow(problem, copies, training, largest))
        met = max(step.get("weight", 0.0) for step in steps)
        if met <= largest:
            return steps
        largest = met


def of_seed(seed: int, parsed: argparse.Namespace) -> pd.DataFrame:
    """Return every step of all runs of a seed, those of an earlier call with the same settings if there are any."""
    kept = parsed.out / f"seed_{seed}_{parsed.dimension}_{parsed.target:g}_{parsed.training}.csv"
    if not kept.exists():
        problem, table = Problem.draw(seed, parsed.dimension, parsed.target), []
        for copies, training in tqdm(list(product(NAMES, (0, parsed.training))), desc=f"seed {seed}", leave=False):
            own = {"seed": seed, "copies": copies, "training": training, "target": problem.eta}
            table += [own | step for step in run(problem, copies, training)]
        write(table, kept, list(pd.DataFrame(table)))
    return pd.read_csv(kept, engine="python")  # which reads what was written to the last bit


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dimension", type=int, default=3, help="of the inputs, and their number")
    parser.add_argument("--target", type=float, default=0.5, help="loss to reach, in units of the first")
    parser.add_argument("--training", type=int, default=10, help="steps of gradient descent after every split")
    parser.add_argument("--out", type=Path, default=Path("reports/theory"))
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parsed.out.mkdir(parents=True, exist_ok=True)
    frame = pd.concat([of_seed(seed, parsed) for seed in parsed.seeds])
    shown = ("seed", "copies", "training", "target", "loss", "step", "splits at most", "neurons")
    for _, last in frame.groupby(["seed", "copies", "training"]).last().reset_index().iterrows():
        print("  ".join(f"{key} {last[key]:.4g}" for key in shown))
    frame.to_csv(parsed.out / "theory.csv", index=False)
    plot(frame, parsed.out / "theory.png")
    print(f"Lemma 3.2: the left side is at most {frame['lemma'].max():.2f} of the right one")
    print(f"{parsed.out / 'theory.csv'}\n{parsed.out / 'theory.png'}")


if __name__ == "__main__":
    main()
