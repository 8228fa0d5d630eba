"""How much of the gain that a selection promises is there on other samples, over the number of samples behind it.

    python benchmarks/selection_noise.py [--json] [--samples 22222] [--epochs 10] [--subsets 4] [--seeds 0 1 2]
                                         [--cache FOLDER] [--csv FILE] [--plot FILE]

A MobileNetV1 of 14 x 32 channels is trained on CIFAR-100 (nine tenths of `samples` images; NNI_S3D_DATA says where the
data set is), once with every seed, and the splitting matrices of all neurons are computed densely for every 128 images
of the training and of the test set. From subsets of the training batches 35% of the neurons are chosen (m = 2,
c = 1.3): by their eigenvalues, by their cross-fitted quotients, and at random. What a choice realises is its gain on
the whole test set. A row is the mean over all networks and subsets; its deviation is that of the networks' means.
--cache keeps the matrices, so that another look at them takes a minute.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.eigen.exact import exact
from nni_s3d.growth.eigen.held_out import FOLDS
from nni_s3d.models import mobilenet_v1
from nni_s3d.tasks.data import DataSet, Images, Loader, load
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.training import evaluate, train

BATCH, POLICY = 128, s3d.TopFraction(0.35)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Matrices = dict[str, Tensor]  # (batches, width, d, d) of every group


def trained(data: DataSet, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = mobilenet_v1((32,) * 14).to(DEVICE)
    loader = Loader(data.train, data.mean, data.std, BATCH, seed=seed, pad=4, flip=True, device=DEVICE)
    train(model, loader, Recipe(epochs=epochs, lr=0.1, amp=False))
    for name, images in (("training", data.train), ("test", data.test)):
        result = evaluate(model, Loader(images, data.mean, data.std, BATCH, device=DEVICE))
        print(f"seed {seed}: {name} accuracy {result.accuracy:.3f}", flush=True)
    return model.eval()


def matrices(model: nn.Module, graph: s3d.ChannelGraph, data: DataSet, images: Images) -> Matrices:
    """Return the splitting matrices of every batch of a set, in random order; an incomplete batch is left out."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    whole = images[order[: len(images) // BATCH * BATCH]]
    found: dict[str, list[Tensor]] = {}
    for batch in Loader(whole, data.mean, data.std, BATCH, device=DEVICE):
        op = s3d.SplittingOperator(model, graph, [batch], F.cross_entropy)
        for name in op.shapes:
            found.setdefault(name, []).append(op.dense(name).cpu())
    return {name: torch.stack(dense) for name, dense in found.items()}


class Known:
    """Splitting matrices of some batches as an operator for `exact`."""

    def __init__(self, every: Matrices, chosen: Tensor) -> None:
        self.matrices = {name: S[chosen].double() for name, S in every.items()}
        self.samples, self.dtype, self.device = BATCH * len(chosen), torch.float64, torch.device("cpu")

    @property
    def folds(self) -> list[Known]:
        number = self.samples // BATCH
        return [Known(self.matrices, part) for part in torch.arange(number).tensor_split(min(FOLDS, number))]

    def dense(self, name: str) -> Tensor:
        return self.matrices[name].mean(dim=0)


def realised(plan: s3d.GrowthPlan, test: Matrices) -> float:
    """Return the gain of a plan, sum_j w_j delta_j' S delta_j over all neurons, for other matrices."""
    total = 0.0
    for name, copies in plan.copies.items():
        S = test[name].double().mean(dim=0)[torch.arange(len(copies)).repeat_interleave(copies)]
        moves = plan.displacements[name]
        total += float(plan.weights[name] @ torch.einsum("ni,nij,nj->n", moves, S, moves))
    return total


def plans(graph: s3d.ChannelGraph, every: Matrices, chosen: Tensor, seed: int) -> dict[str, s3d.GrowthPlan]:
    op = Known(every, chosen)
    spectrum = {name: exact(op, name) for name in every}
    found = {"naive": s3d.select(spectrum, graph, POLICY)}
    held_out = {
        name: replace(s, lambda_min=h.shares @ h.lambda_min, lambda_max=h.shares @ h.lambda_max)
        for name, s in spectrum.items()
        if (h := s.held_out) is not None
    }
    if held_out:
        copies = s3d.select(held_out, graph, POLICY).copies
        found["cross-fitted"] = s3d.plan_from_copies(graph, copies, spectrum)
    widths = list(graph.widths.values())
    order = torch.randperm(sum(widths), generator=torch.Generator().manual_seed(seed))
    at_random = torch.ones(sum(widths), dtype=torch.int64)
    at_random[order[: found["naive"].neurons]] = 2
    copies = dict(zip(graph.widths, at_random.split(widths), strict=True))
    found["random"] = s3d.plan_from_copies(graph, copies, spectrum)
    return found


Measured = dict[tuple[int, str], list[tuple[float, float | None, float, float]]]
"""{(samples, ranking): (predicted, held out, realised, share of what the whole set realises) of every choice}"""


def measured(graph: s3d.ChannelGraph, every: Matrices, test: Matrices, subsets: int) -> Measured:
    """Return what the choices of one network promise and realise, for every number of samples and ranking."""
    batches = len(next(iter(every.values())))
    whole = realised(plans(graph, every, torch.arange(batches), 0)["naive"], test)
    sizes = [n for n in (1, 2, 4, 8, 16, 32, 48, 64, 80, 128) if n < batches]
    found: Measured = {}
    for size in (*sizes, batches):
        for subset in range(1 if size == batches else subsets):
            chosen = torch.randperm(batches, generator=torch.Generator().manual_seed(subset))[:size]
            for ranking, plan in plans(graph, every, chosen, subset).items():
                real = realised(plan, test)
                of_choice = (plan.gain, plan.held_out_gain, real, real / whole)
                found.setdefault((size * BATCH, ranking), []).append(of_choice)
    return found


def _mean(values: tuple[float | None, ...]) -> float | None:
    return None if None in values else statistics.mean(values)


def table(networks: list[Measured]) -> list[dict[str, object]]:
    """Return a row for every number of samples and ranking: means over networks, and the deviation between them."""
    rows: list[dict[str, object]] = []
    for samples, ranking in networks[0]:
        of_networks = [map(_mean, zip(*network[samples, ranking], strict=True)) for network in networks]
        predicted, held_out, real, share = zip(*of_networks, strict=True)
        rows.append(
            {
                "samples": samples,
                "ranking": ranking,
                "predicted": statistics.mean(predicted),
                "held out": _mean(held_out),
                "realised": statistics.mean(real),
                "deviation": statistics.stdev(real) if len(real) > 1 else None,
                "realised / whole set": statistics.mean(share),
                "its deviation": statistics.stdev(share) if len(share) > 1 else None,
                "held out / realised": None if None in held_out else statistics.mean(held_out) / statistics.mean(real),
            }
        )
    return rows


def plot(rows: list[dict[str, object]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    naive = [row for row in rows if row["ranking"] == "naive"]
    known = [row for row in naive if row["held out"] is not None]
    axes.plot(
        [r["samples"] for r in naive], [-r["predicted"] for r in naive], "k:", label="promised by the eigenvalues"
    )
    axes.plot([r["samples"] for r in known], [-r["held out"] for r in known], "k--", label="promised by held-out folds")
    for ranking, colour in (("naive", "C0"), ("cross-fitted", "C1"), ("random", "0.6")):
        own = [row for row in rows if row["ranking"] == ranking]
        spread = [row["deviation"] or 0.0 for row in own]
        label = {"naive": "realised, ranked by eigenvalue", "cross-fitted": "realised, ranked by held-out folds"}
        axes.errorbar(
            [r["samples"] for r in own],
            [-r["realised"] for r in own],
            spread,
            color=colour,
            marker="o",
            markersize=4,
            capsize=3,
            label=label.get(ranking, "realised, neurons at random"),
        )
    axes.set(xscale="log", xlabel="samples behind the spectrum", ylabel="-G of the chosen 35% on the test set")
    axes.set_xticks([r["samples"] for r in naive], [f"{r['samples']:,}" for r in naive], rotation=45)
    axes.minorticks_off()
    axes.set_ylim(0, -4 * naive[-1]["realised"])
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def matrices_of_network(graph: s3d.ChannelGraph, parsed: argparse.Namespace, seed: int) -> tuple[Matrices, Matrices]:
    """Return the splitting matrices of one network for the batches of the training and of the test set."""
    files = [parsed.cache / f"{name}-{seed}.pt" for name in ("train", "test")] if parsed.cache else []
    if files and all(file.exists() for file in files):
        every, test = (torch.load(file, weights_only=True) for file in files)
        return every, test
    data = load("cifar100", 0.1, parsed.samples)
    model = trained(data, parsed.epochs, seed)
    every, test = (matrices(model, graph, data, images) for images in (data.train, data.test))
    for file, found in zip(files, (every, test), strict=False):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, file)
    return every, test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--samples", type=int, default=22_222)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--subsets", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--csv")
    parser.add_argument("--plot")
    parsed = parser.parse_args()
    graph = s3d.trace(mobilenet_v1((32,) * 14), torch.randn(1, 3, 32, 32))
    networks = [measured(graph, *matrices_of_network(graph, parsed, seed), parsed.subsets) for seed in parsed.seeds]
    rows = table(networks)
    if parsed.csv:
        with open(parsed.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if parsed.plot:
        plot(rows, parsed.plot)
    if parsed.json:
        print(json.dumps({"device": DEVICE, "rows": rows}))
        return
    print("".join(f"{key:>22}" for key in rows[0]))
    for row in rows:
        print("".join(f"{f'{v:.3f}' if isinstance(v, float) else '-' if v is None else v:>22}" for v in row.values()))


if __name__ == "__main__":
    main()
