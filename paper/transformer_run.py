"""One run of paper.language: a transformer that is trained and grown through all sizes, with checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import nni_s3d as s3d
from nni_s3d.growth.growth_step import decide
from nni_s3d.growth.seeds import seed_for
from nni_s3d.growth.settings import GrowthSettings
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_checkpoint, write_checkpoint
from paper.files import file_name
from paper.small_transformer import SmallTransformer
from paper.text import Text, drawn, read_text, whole

METHODS: dict[str, dict[str, Any] | None] = {
    "S3D": {"shrink": 1.0, "perturb": 0.0},
    "S3D, shrunk": {},  # the defaults of nni_s3d
    "random splits": {"method": "random", "epsilon": 0.3, "shrink": 1.0, "perturb": 0.0},
    "new neurons": {"method": "new_neurons", "shrink": 1.0, "perturb": 0.0},
    "scratch": None,
}
BLOCKS, SEED_WIDTH, GROWTH, SHARES = 4, 64, 0.6, (0.1, 0.15, 0.25, 0.5)
LENGTH, BATCH, SAMPLES = 64, 32, 64  # characters of a sequence, sequences of a batch, and those behind a spectrum
WARM_UP, DECAY, CHECKPOINT = 0.02, 0.15, 50  # shares of all MACs; steps between two checkpoints
COLUMNS = ("mlp", "method", "rate", "seed", "step", "neurons", "params", "macs", "train_macs", "validation", "test")


def loss_fn(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy over all characters, in nats."""
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten())


@torch.no_grad()
def bits(model: nn.Module, part: Tensor) -> float:
    """Return the loss over a text in bits per character."""
    model.eval()
    losses = [(float(loss_fn(model(inputs), targets)), len(inputs)) for inputs, targets in whole(part, 64, LENGTH)]
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses) / math.log(2)


def rate_at(share: float) -> float:
    """Return the learning rate when a share of all MACs is spent, relative to the highest."""
    return min(1.0, (share + 1e-4) / WARM_UP, max(0.0, (1 - share) / DECAY))


def traced(model: nn.Module) -> s3d.ChannelGraph:
    """Return the channel graph in which only MLPs grow."""
    graph = s3d.trace(model, torch.zeros(1, LENGTH, dtype=torch.int64))
    return graph.refuse_others([f"blocks.{i}.mlp.w1" for i in range(BLOCKS)], "only MLPs are asked for")


def reset_copies(state: dict[str, Any], model: nn.Module, graph: s3d.ChannelGraph, plan: s3d.GrowthPlan) -> None:
    """Set AdamW's averages to zero for all copies of a neuron but its first, in what they read and in what reads them.

    Args:
        state: the state dict of an optimizer over all parameters of the grown network, changed in place.
        model: the grown network.
        graph: its channel graph.
        plan: how it has grown.
    """
    fresh = torch.zeros(graph.num_channels, dtype=torch.bool)
    for name, copies in plan.copies.items():
        is_first = torch.zeros(int(copies.sum()), dtype=torch.bool)
        is_first[copies.cumsum(0) - copies] = True
        fresh[graph[name].channels] = ~is_first
    places = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    for axis in graph.axes():
        chosen = (fresh[axis.slots.clamp(min=0)] & (axis.slots >= 0)).nonzero()[:, 0]
        buffers = state["state"].get(places.get(axis.tensor), {})
        for average in (buffers[key] for key in ("exp_avg", "exp_avg_sq") if key in buffers):
            average.index_fill_(axis.dim, chosen, 0.0)


@dataclass(frozen=True)
class Job:
    """One run."""

    mlp: str
    method: str
    rate: float
    seed: int
    steps: int

    @property
    def folder(self) -> str:
        """A name for its files."""
        return f"{self.mlp}-{file_name(self.method)}-{self.rate:g}-{self.seed}-{self.steps}"


class Run:
    """A transformer on its way through all sizes; what a checkpoint holds is `state`."""

    def __init__(self, job: Job, store: Store) -> None:
        self.job, self.store = job, store
        self.text: Text = read_text()
        self.settings = METHODS[job.method]
        even = [round(SEED_WIDTH * (1 + GROWTH) ** (len(SHARES) - 1))] * BLOCKS
        self.total = 3 * BATCH * job.steps * s3d.count(traced(self.network(even))).macs
        hidden = even if self.settings is None else [SEED_WIDTH] * BLOCKS
        self.phase, self.done, self.spent = 0, 0, 0  # sizes that are over, steps of training, MACs
        self.rows: list[dict[str, Any]] = []
        saved = read_checkpoint(store, f"{job.folder}/checkpoint.pt")
        self.model: nn.Module = self.network(saved["hidden"] if saved else hidden)
        self.optimizer = self.adamw(self.model)
        if saved:
            self.phase, self.done, self.spent, self.rows = (saved[key] for key in ("phase", "done", "spent", "rows"))
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])

    def network(self, hidden: list[int]) -> SmallTransformer:
        """Return a network with new weights."""
        torch.manual_seed(self.job.seed)
        return SmallTransformer(self.text.characters, LENGTH, hidden, self.job.mlp)

    def adamw(self, model: nn.Module) -> torch.optim.AdamW:
        """Return a new optimizer."""
        return torch.optim.AdamW(model.parameters(), lr=self.job.rate, betas=(0.9, 0.95), weight_decay=0.1)

    def save(self) -> None:
        """Write a checkpoint."""
        hidden = list(traced(self.model).widths.values())
        state = {"phase": self.phase, "done": self.done, "spent": self.spent, "rows": self.rows, "hidden": hidden}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        write_checkpoint(self.store, f"{self.job.folder}/checkpoint.pt", state)

    def carry_out(self) -> None:
        """Train and grow to the end, and keep the rows."""
        phases = len(SHARES) if self.settings is not None else 1
        while self.phase < phases:
            graph = traced(self.model)
            self.train(self.total * (sum(SHARES[: self.phase + 1]) if phases > 1 else 1.0), graph)
            self.rows.append(self.row(graph))
            self.phase += 1
            if self.phase < phases:
                self.grow(graph)
            self.save()
        self.store.write_json(f"{self.job.folder}/rows.json", {"rows": self.rows})
        self.store.remove(f"{self.job.folder}/checkpoint.pt")

    def train(self, until: float, graph: s3d.ChannelGraph) -> None:
        """Train until so many MACs are spent."""
        step = 3 * BATCH * s3d.count(graph).macs
        bar = tqdm(total=self.job.steps, desc=self.job.folder, disable=None, leave=False)
        self.model.train()
        while self.spent + step / 2 <= until:
            for group in self.optimizer.param_groups:
                group["lr"] = self.job.rate * rate_at(self.spent / self.total)
            inputs, targets = drawn(self.text.train, BATCH, LENGTH, seed_for(self.job.seed, self.done))
            self.optimizer.zero_grad()
            loss_fn(self.model(inputs), targets).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.spent, self.done = self.spent + step, self.done + 1
            if self.done % CHECKPOINT == 0:
                self.save()
                bar.update(round(self.job.steps * self.spent / self.total) - bar.n)

    def grow(self, graph: s3d.ChannelGraph) -> None:
        """Take a growth step, with the optimizer's state."""
        job, neurons = self.job, sum(graph.widths.values())
        policy = s3d.Knapsack(budget=round((1 + GROWTH) * neurons), cost="neurons")
        settings = GrowthSettings(**(self.settings or {}), policy=policy)
        seed = seed_for(job.seed, self.phase)
        batches = [drawn(self.text.train, BATCH, LENGTH, seed_for(seed, i)) for i in range(SAMPLES // BATCH)]
        self.model.eval()
        decision = decide(self.model, graph, settings, batches, loss_fn, seed=seed)
        self.spent += round(s3d.count(graph).macs * SAMPLES * decision.passes)
        if decision.plan is None:
            raise RuntimeError(decision.stop)
        result = s3d.split(self.model, graph, decision.plan, settings.epsilon, self.optimizer)
        s3d.shrink_and_perturb(result.model, settings.shrink, settings.perturb, seed_for(seed, 1))
        state: Any = result.optimizer_state
        reset_copies(state, result.model, result.graph, decision.plan)
        self.model, self.optimizer = result.model, self.adamw(result.model)
        self.optimizer.load_state_dict(state)

    def row(self, graph: s3d.ChannelGraph) -> dict[str, Any]:
        """Return what the network is by now."""
        job, cost = self.job, s3d.count(graph)
        sizes = (sum(graph.widths.values()), cost.params, cost.macs, self.spent)
        losses = (bits(self.model, part) for part in (self.text.validation, self.text.test))
        return dict(zip(COLUMNS, (job.mlp, job.method, job.rate, job.seed, self.phase, *sizes, *losses), strict=True))
