"""What a job works with: the task at its scale, networks that are trained once and kept, and what they have cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.config import build
from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search.folder import Folder
from nni_s3d.search.store import Store
from nni_s3d.tasks.data import DataSet, Loader, Samples
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.task import Task
from nni_s3d.tasks.together import call_helpers
from nni_s3d.tasks.training import evaluate
from paper.settings import Job, Method, Scale, Study
from paper.trained import trained

Row = dict[str, Any]
COLUMNS = (
    *("method", "target", "seed", "step", "params", "macs", "flops"),
    *("accuracy", "test_accuracy", "test_top5", "train_macs", "widths"),
)


@dataclass
class Bench:
    """One job, and what it has spent."""

    study: Study
    scale: Scale
    job: Job
    out: Path
    spent: int = 0  # MACs of training

    @cached_property
    def method(self) -> Method:
        """How this job gets to its networks."""
        return self.study.methods[self.job.method]

    @cached_property
    def task(self) -> Task:
        """The task at this scale; its search space begins with the widths of the scaled seed network."""
        task = self.study.scaled_task(self.scale, self.method)
        lr = self.scale.lr.get(self.method.kind, task.training.lr)
        training = asdict(task.training) | {"lr": lr} | self.method.training
        recipe = build(Recipe, training, f"{self.job.method}: training")
        entries = {
            name: {"_type": "randint", "_value": [self.scaled(low), max(self.scaled(high), self.scaled(low)) + 1]}
            for (name, low), high in zip(task.space().low.items(), task.space().high.values(), strict=True)
        }
        folder = self.out / self.job.folder
        Folder(str(folder)).agree({"search_space.json": entries})
        task = replace(task, training=recipe, seed=self.job.seed)
        return replace(task, directory=str(folder.resolve()), search_space="search_space.json")

    @cached_property
    def data(self) -> DataSet:
        """The data set, of as many samples as the scale has."""
        return self.task.load_data()

    @cached_property
    def store(self) -> Store:
        """Where this job's networks are kept, with the settings that they come from."""
        store = self.store_of(self.job.folder)
        store.agree({"settings.json": self.settings})
        return store

    @property
    def settings(self) -> dict[str, Any]:
        """What this job's rows come from, beside the task."""
        kind, method = self.method.kind, self.method.differing() | {"penalty": self.penalty}
        if kind == "amc":
            method["episodes"] = self.episodes
        growth = self.growth if kind == "grow" else {}
        needs_reference = self.job.target != "own" or kind == "scratch"
        reference = self.reference if needs_reference else []
        return {"method": method, "full": self.full, "growth": growth, "reference": reference}

    @property
    def comes_from(self) -> dict[str, Any]:
        """Everything that this job's rows come from, but for the search space."""
        return {"task": self.task.fingerprint, "settings": self.settings}

    @property
    def growth(self) -> dict[str, Any]:
        """Settings of a lineage that all methods share, at this scale."""
        return self.study.growth | self.scale.growth

    @property
    def penalty(self) -> float:
        """On the scales of batch norms, at this scale."""
        return self.method.penalty * self.scale.penalty

    @property
    def episodes(self) -> int:
        """Networks that AMC tries, at this scale."""
        return self.scale.episodes or self.method.episodes

    def store_of(self, folder: str) -> Store:
        """Return a store for networks that several jobs share, or this one alone."""
        store = Store(str(self.out / folder))
        store.claim(self.task.fingerprint)
        return store

    def rows(self, unfinished: bool = False) -> list[Row]:
        """Return the rows that this job has left, if they come from the same settings: all if it is done, else none."""
        store = Store(str(self.out / self.job.folder))
        saved = store.read_json("rows.json", "rows", "done")
        comes_from = {"task": store.read_json("task.json"), "settings": store.read_json("settings.json")}
        if saved is None or comes_from != json.loads(json.dumps(self.comes_from)):
            return []
        return list(saved["rows"]) if saved["done"] or unfinished else []

    def keep(self, rows: list[Row], done: bool) -> None:
        """Keep the rows of this job."""
        self.store.write_json("rows.json", {"rows": rows, "done": done})

    @cached_property
    def reference(self) -> list[Row]:
        """The networks of the reference on the same seed, one for every step.

        Raises:
            StoreError: it has not come to its end, or has not grown.
        """
        job = Job(self.study.reference, "own", self.job.seed)
        rows = Bench(self.study, self.scale, job, self.out).rows()
        if len(rows) < 2:
            raise StoreError(f"{self.out}: expected the grown networks of {job.folder}, which are not done")
        return rows

    @property
    def full(self) -> dict[str, int]:
        """Widths of the full network.

        Raises:
            ConfigError: there are not as many as the search space has.
        """
        full, names = self.method.full or self.study.full, self.task.space().low
        if len(full) != len(names):
            raise ConfigError(f"full: expected {len(names)} widths, those of {', '.join(names)}, got {len(full)}")
        return dict(zip(names, map(self.scaled, full), strict=True))

    @property
    def epochs(self) -> int:
        """Of a phase."""
        return self.task.training.epochs

    def scaled(self, width: int) -> int:
        """Return a width at this scale."""
        return max(2, round(width * self.scale.width))

    def build(self, widths: dict[str, int]) -> nn.Module:
        """Return a network with fresh weights."""
        return self.task.build_model(widths, self.job.seed, self.data.shape)

    def graph(self, model: nn.Module) -> s3d.ChannelGraph:
        """Return the channel graph of a network, in which only what the search space names changes."""
        graph = s3d.trace(model, self.task.example(self.data.shape))
        return graph.refuse_others(self.task.space().low, "the search space does not name it")

    def epochs_for(self, train_macs: float, graph: s3d.ChannelGraph) -> int:
        """Return how many epochs of a network an amount of training pays."""
        return max(1, round(train_macs / (3 * s3d.count(graph).macs * len(self.data.train))))

    @property
    def budget(self) -> tuple[str, float]:
        """The cost that the target bounds, and the bound."""
        if self.job.target == "own":
            kind = self.method.share_of
            return kind, self.method.share * getattr(s3d.count(self.graph(self.build(self.full))), kind)
        kind = "params" if self.job.target == "params" else "macs"
        return kind, self.reference[-1][kind]

    @property
    def total(self) -> int:
        """MACs that the reference has spent on training."""
        return int(self.reference[-1]["train_macs"])

    def trained(
        self,
        name: str,
        model: nn.Module,
        epochs: int,
        penalty: Callable[[], Tensor | float] = lambda: 0.0,
        store: Store | None = None,
    ) -> nn.Module:
        """Train a network in place, or load what an earlier call under the same name has left, and charge it."""
        store, graph = store or self.store, self.graph(model)
        store.agree({f"{name}/settings.json": {"epochs": epochs, "widths": graph.widths}})
        recipe, seed = self.task.training.lasting(epochs), self.job.seed
        batches = self.task.training_loader(self.data, seed)
        trained(
            *(store, name, model, batches, recipe, seed, penalty),
            begin=lambda: call_helpers(graph.widths, recipe, seed, seed, self.data),
        )
        self.spent += 3 * s3d.count(graph).macs * len(self.data.train) * epochs
        return model

    def loader(self, samples: Samples, batch_size: int = 512) -> Loader:
        """Return batches of samples as they are."""
        return Loader(samples, self.data.mean, self.data.std, batch_size, device=self.task.torch_device)

    def row(self, model: nn.Module) -> Row:
        """Measure a network and return its row."""
        graph = self.graph(model)
        validation, test = (evaluate(model, self.loader(part)) for part in (self.data.validation, self.data.test))
        metrics = asdict(s3d.count(graph)) | {"default": validation.accuracy, "test_accuracy": test.accuracy}
        return self.entry(metrics | {"test_top5": test.top5}, 0, graph.widths)

    def entry(self, metrics: Mapping[str, Any], step: int, widths: Mapping[str, int]) -> Row:
        """Return the row of a network from the metrics of a trial; what it has cost is all that this job has spent."""
        job = {"method": self.job.method, "target": self.job.target, "seed": self.job.seed, "step": step}
        cost = {name: int(metrics[name]) for name in ("params", "macs", "flops")}
        quality = {"accuracy": metrics["default"], "test_accuracy": metrics["test_accuracy"]}
        named = {name: widths[name] for name in self.task.space().low}
        row = job | cost | quality | {"train_macs": self.spent, "widths": json.dumps(named)}
        return row if metrics.get("test_top5") is None else row | {"test_top5": metrics["test_top5"]}


def within(costs: Callable[[float], float], least: float, most: float, limit: float, steps: int = 24) -> float:
    """Return the largest number whose cost, which rises with it, is at most a limit, by bisection.

    Raises:
        ConfigError: the least number costs more.
    """
    if (cost := costs(least)) > limit:
        raise ConfigError(f"target: expected at least {cost:,.0f}, what the smallest network costs, got {limit:,.0f}")
    for _ in range(steps):
        middle = (least + most) / 2
        least, most = (middle, most) if costs(middle) <= limit else (least, middle)
    return least
