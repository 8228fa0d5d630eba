"""What can be removed at a time: one neuron, or as many of every cell of a cluster as keep parts equally large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nni_s3d.growth.graph.clusters import Cluster, Clusters
from nni_s3d.growth.graph.integer_program import milp

_STAY = 2  # neurons of every cell at least: a trace cannot tell the place of a single one


@dataclass(frozen=True, eq=False)
class Removals:
    """Steps of removal; those of one chain are made in their order."""

    channels: np.ndarray  # (n,) all channels that may go, each once
    step: np.ndarray  # (n,) the step in which each goes, in ascending order
    chain: np.ndarray  # (steps,) those of one cluster have one number, in ascending order
    scores: np.ndarray  # (steps,) their importance

    def __len__(self) -> int:
        return len(self.chain)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sums (steps,) of values (channels,)."""
        return np.bincount(self.step, values[self.channels], minlength=len(self))

    def channels_of(self, steps: np.ndarray) -> np.ndarray:
        """Return the channels of some steps."""
        return self.channels[np.isin(self.step, steps)]

    def first_to_go(self, steps: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Return the order of steps (n,), ascending ones, by importance per price (n,)."""
        rates = self.scores[steps] / prices.clip(min=1e-12)
        chain = self.chain[steps]
        for number in np.flatnonzero(np.bincount(chain) > 1):
            rates[chain == number] = np.maximum.accumulate(rates[chain == number])
        return np.argsort(rates, kind="stable")


def find_removals(found: Clusters, scores: np.ndarray, protected: np.ndarray) -> Removals:
    """Return all steps of removal.

    Args:
        found: what the cuts of the graph ask for.
        scores: (channels,) the importance of each.
        protected: (channels,) bool, which of them stay in any case.
    """
    free = np.flatnonzero(~(protected | found.inside.numpy()))
    steps = [np.array([channel]) for channel in free]
    chains = list(range(len(free)))
    for number, cluster in enumerate(found.clusters, start=len(free)):
        of_cluster = _steps(cluster, scores, protected)
        steps += of_cluster
        chains += [number] * len(of_cluster)
    lengths = [len(step) for step in steps]
    channels = np.concatenate([np.empty(0, np.int64), *steps])
    which = np.repeat(np.arange(len(steps)), lengths)
    return Removals(channels, which, np.array(chains), np.bincount(which, scores[channels], minlength=len(steps)))


def _steps(cluster: Cluster, scores: np.ndarray, protected: np.ndarray) -> list[np.ndarray]:
    """Return the channels of every step of a cluster, the least important ones of every cell first."""
    ratio = _smallest_step(cluster)
    cells = [cell[np.argsort(scores[cell], kind="stable")] for cell in cluster.cells]
    most = min((len(cell) - _STAY) // n for cell, n in zip(cells, ratio, strict=True))
    steps = []
    for k in range(most):
        step = np.concatenate([cell[k * n : (k + 1) * n] for cell, n in zip(cells, ratio, strict=True)])
        if protected[step].any():
            break
        steps.append(step)
    return steps


def _smallest_step(cluster: Cluster) -> np.ndarray:
    """Return how many channels (cells,) of each cell go at a time, at least one of each."""
    from scipy.optimize import Bounds, LinearConstraint

    if cluster.ratio is not None:
        return cluster.ratio
    sizes = np.array([len(cell) for cell in cluster.cells])
    solved = milp(
        np.ones(len(sizes)),
        constraints=LinearConstraint(cluster.equations, 0, 0),
        bounds=Bounds(1, sizes),
        integrality=np.ones(len(sizes)),
        options={"mip_rel_gap": 0.01},
    )
    return sizes if solved.x is None else solved.x.round().astype(np.int64)
