"""AMC (He et al., 2018): an agent decides layer by layer how much of it is cut, and is rewarded for accuracy.

State and bounds are those of their Section 3, the agent that of paper/ddpg.py. The state of a layer is its number, its
shape, what it costs, what has been cut before and what comes after it, and the action before (their equation 1). An
action is the fraction that stays. It is bounded so that the budget can still be kept if all later layers are cut to the
least (their Algorithm 1). The reward is minus the error of the cut network on the validation set, without training. A
layer stands for its channels here, and costs what they cost, in the layers that read them, too. What the best network
leaves of the budget is filled by one factor on all fractions. A search that was cut off begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.cost import CostModel, marginal_cost
from nni_s3d.growth.modules import evaluation_mode
from nni_s3d.tasks.training import evaluate
from paper.bench import Bench, Row, within
from paper.ddpg import learn
from paper.pruning import cost_of, fine_tuned, largest, trained_full

LEAST = 0.2  # of a layer that stays
_IMAGES = 1024  # of the validation set behind a reward


def amc(bench: Bench) -> Iterator[Row]:
    """Search the fractions, cut the full network and train what is left."""
    model = trained_full(bench)
    graph = bench.graph(model)
    scores = s3d.importance(model, graph, "l1")
    keep = kept(scores, _searched(bench, model, graph, scores))
    yield bench.row(fine_tuned(bench, model, graph, keep))


def _searched(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, scores: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return the best fractions, those of an earlier call if there are any, and charge the search."""
    kind, budget = bench.budget
    images = bench.data.validation[torch.arange(min(_IMAGES, len(bench.data.validation)))]

    spent = 0

    def accuracy(fractions: dict[str, float]) -> float:
        nonlocal spent
        cut = s3d.remove(model, graph, kept(scores, fractions))
        spent += s3d.count(cut.graph).macs * len(images)
        return evaluate(cut.model, bench.loader(images)).accuracy

    found = bench.store.read_json("search.json", "fractions", "macs")
    if found is None:
        shapes = shapes_of(model, graph, bench.task.example(bench.data.shape))
        layers = Layers(graph, scores, shapes, kind, budget, accuracy)
        best = search(layers, bench.episodes, bench.job.seed)
        found = {"fractions": layers.filled(best), "macs": spent}
        bench.store.write_json("search.json", found)
    bench.spent += found["macs"]
    return dict(found["fractions"])


def search(layers: Layers, episodes: int, seed: int) -> dict[str, float]:
    """Return the fractions of the best of so many networks."""
    learn(layers, len(layers.groups), episodes, seed)
    return layers.best


class Layers(gymnasium.Env):
    """The layers of a network, one after the other; an episode is a network.

    Args:
        graph: the channel graph of the network.
        scores: {group: (width,)} of its neurons; those of largest score stay.
        shapes: what the agent is told of every layer, (groups, n).
        kind: of the cost that is bounded.
        budget: the bound.
        accuracy: of the network of which these fractions stay.

    Raises:
        ConfigError: the budget is below what the agent may cut to.
    """

    def __init__(
        self,
        graph: s3d.ChannelGraph,
        scores: Mapping[str, Tensor],
        shapes: list[list[float]],
        kind: str,
        budget: float,
        accuracy: Callable[[dict[str, float]], float],
    ) -> None:
        self.groups = list(scores)
        self.graph, self.scores, self.kind, self.budget, self.accuracy = graph, scores, kind, budget, accuracy
        self.shares = _shares(graph, kind)
        self.shapes = np.array(shapes) / np.max(shapes, axis=0)
        self.cost = CostModel(graph, kind)
        self.whole = self.cost.total()
        if (least := self._cost(dict.fromkeys(self.groups, LEAST))) > budget:
            raise ConfigError(
                f"budget: expected at least {least:,.0f} {kind}, a fifth of every layer, got {budget:,.0f}"
            )
        self.action_space = gymnasium.spaces.Box(LEAST, 1.0, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (self.shapes.shape[1] + 5,), np.float32)
        self.best: dict[str, float] = {}
        self.best_accuracy = -math.inf
        self.fractions: dict[str, float] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin with a whole network."""
        super().reset(seed=seed)
        self.fractions = {}
        return self._state(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Cut the next layer, as far as the budget allows."""
        name = self.groups[len(self.fractions)]
        self.fractions[name] = min(float(action[0]), self._most(name))
        if len(self.fractions) < len(self.groups):
            return self._state(), 0.0, False, False, {}
        accuracy = self.accuracy(self.fractions)
        if accuracy > self.best_accuracy:
            self.best, self.best_accuracy = dict(self.fractions), accuracy
        return self._state(), accuracy - 1.0, True, False, {}

    def filled(self, fractions: Mapping[str, float]) -> dict[str, float]:
        """Return fractions times the largest factor that keeps to the budget: other methods use all of it, too."""

        def times(factor: float) -> dict[str, float]:
            return {name: min(1.0, factor * fraction) for name, fraction in fractions.items()}

        return times(within(lambda factor: self._cost(times(factor)), 1.0, 1 / LEAST, self.budget))

    def _most(self, name: str) -> float:
        """Return the largest fraction of a layer that leaves the budget within reach."""
        later = dict.fromkeys(self.groups[len(self.fractions) + 1 :], LEAST)
        return within(lambda share: self._cost({**self.fractions, name: share, **later}), LEAST, 1.0, self.budget)

    def _cost(self, fractions: dict[str, float]) -> float:
        return cost_of(self.cost, self.graph, kept(self.scores, fractions))

    def _state(self) -> np.ndarray:
        t = min(len(self.fractions), len(self.groups) - 1)
        reduced = 1 - self._cost(self.fractions) / self.whole
        rest = float(self.shares[t + 1 :].sum())
        before = list(self.fractions.values())[-1] if self.fractions else 1.0
        place = t / max(1, len(self.groups) - 1)
        return np.array([place, *self.shapes[t], self.shares[t], reduced, rest, before], dtype=np.float32)


def _shares(graph: s3d.ChannelGraph, kind: str) -> np.ndarray:
    """Return what the neurons of every group cost, as fractions of their sum; shape (groups,)."""
    prices = marginal_cost(graph, kind)
    of_groups = np.array([float(prices[group.channels].sum()) for group in graph.splittable_groups])
    shares: np.ndarray = of_groups / of_groups.sum()
    return shares


def shapes_of(model: nn.Module, graph: s3d.ChannelGraph, example: Tensor) -> list[list[float]]:
    """Return outputs, inputs, height and width of the input, stride and kernel size of every group's first layer."""
    found: dict[str, list[float]] = {}

    def note(name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            height, width = inputs[0].shape[-2:] if inputs[0].dim() == 4 else (1, 1)
            rows, columns = layer.weight.shape[:2]
            stride = getattr(layer, "stride", (1,))[0]
            kernel = getattr(layer, "kernel_size", (1,))[0]
            found[name] = [rows, columns, height, width, stride, kernel]

        return hook

    layers = {group.name: model.get_submodule(group.producers[0].name) for group in graph.splittable_groups}
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    with evaluation_mode(model), torch.no_grad():
        model(example)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in layers]


def kept(scores: Mapping[str, Tensor], fractions: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the neurons that stay, those of largest score; all of layers without a fraction."""
    return {name: largest(score, round(fractions.get(name, 1.0) * len(score))) for name, score in scores.items()}
