"""One strategy on one seed, until its budget of training is spent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.growth.graph.cost import count
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.plugin.tuners import Proposer
from nni_s3d.report.table import si
from nni_s3d.search import trial
from nni_s3d.search.experiment import Experiment, ExperimentFile, run
from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A strategy, a seed, and what it may spend."""

    label: str  # of the strategy
    file: ExperimentFile
    seed: int
    budget: float  # MACs of training and of curvature
    out: Path

    @property
    def store(self) -> Store:
        """Where its networks are kept."""
        return Store(str(self.out / "runs" / f"{self.label}-{self.seed}"))

    @property
    def settings(self) -> dict[str, Any]:
        """What its rows follow from, but for the budget."""
        file = self.file
        return {"task": file.task.fingerprint, "space": file.entries, "tuner": vars(file.tuner), "seed": self.seed}

    def rows(self) -> list[Row]:
        """Return the rows that are there by now."""
        return self._saved()[0]

    @property
    def done(self) -> bool:
        """Whether it has come to its end, with at least this budget."""
        return self._saved()[1] >= self.budget

    def carry_out(self) -> None:
        """Run to the end; trials that an earlier call has finished are not run again.

        Raises:
            StoreError: what is there was made with other settings.
        """
        self.store.agree({"settings.json": self.settings})
        if self.done:
            return
        rows: list[Row] = []
        spent = 0.0
        for parameters, metrics in self._trials():
            spent += metrics["train_macs"]
            if spent > self.budget:
                break
            rows.append(self._row(len(rows), parameters, metrics, spent))
            self.store.write_json("rows.json", {"rows": rows, "budget": 0.0})
        self.store.write_json("rows.json", {"rows": rows, "budget": self.budget})

    def _saved(self) -> tuple[list[Row], float]:
        try:
            saved = self.store.read_json("rows.json", "rows", "budget")
        except StoreError:
            return [], 0.0
        if saved is None:
            return [], 0.0
        return [row for row in saved["rows"] if row["search_macs"] <= self.budget], saved["budget"]

    def _trials(self) -> Iterator[tuple[Mapping[str, Any], Mapping[str, float]]]:
        file, store = self.file, self.store
        task = dataclasses.replace(file.task, seed=self.seed)
        if file.tuner.grows:
            lineages = [dataclasses.replace(line, seed=line.seed + self.seed) for line in file.lineages]
            for parameters, metrics in run(Experiment(task, file.space, lineages), store):
                if metrics is None:
                    raise RuntimeError(f"{self.label}: a trial has failed")
                yield parameters, metrics
            return
        proposer = self.proposer()
        while (proposed := proposer.propose()) is not None:
            metrics = trial.run(proposed, task, store)
            yield proposed, metrics
            proposer.tell(proposed, metrics)

    def proposer(self) -> Proposer:
        """Return NNI's tuner.

        Raises:
            ConfigError: there is no such tuner, or it does not run here.
        """
        tuner = self.file.tuner
        if not (name := tuner.name or tuner.className):
            raise ConfigError(f"{self.file.path}: tuner: expected its name or className, got none")
        return Proposer(name, tuner.classArgs, self.file.entries, self.seed)

    def _row(self, number: int, parameters: Mapping[str, Any], metrics: Mapping[str, float], spent: float) -> Row:
        widths = {name: int(width) for name, width in widths_of(parameters).items()}
        return {
            "strategy": self.label,
            "seed": self.seed,
            "trial": number,
            "accuracy": metrics["default"],
            **{name: metrics[name] for name in ("test_accuracy", "params", "macs", "flops", "train_macs")},
            "search_macs": spent,
            "widths": json.dumps(widths),
        }


def check_runs(planned: list[Run]) -> None:
    """Refuse a comparison that would be none, before anything is trained.

    Raises:
        S3DError: two files have different tasks, a task or a tuner is not what it should be, or the budget pays for no
            network.
    """
    first = planned[0].file
    for file in (plan.file for plan in planned[1:]):
        ours, theirs = ({**f.task.fingerprint, "search space": f.entries} for f in (first, file))
        if differing := ", ".join(key for key in ours if ours[key] != theirs[key]):
            raise ConfigError(f"{file.path}: expected the task of {first.path}, got another one ({differing})")
    task, data = first.task, first.task.load_data()
    graph = read_graph(task.build_model(first.space.low, task.seed, data.shape), task.example(data.shape))
    least = 3 * count(graph).macs * len(data.train) * task.training.epochs
    if planned[0].budget < least:
        expected = f"expected at least {si(least)}, what the smallest network costs"
        raise ConfigError(f"--budget: {expected}, got {si(planned[0].budget)}")
    for plan in planned:
        dataclasses.replace(plan.file.task, seed=plan.seed)  # which knows what a seed is
        _ = plan.file.lineages if plan.file.tuner.grows else plan.proposer()
