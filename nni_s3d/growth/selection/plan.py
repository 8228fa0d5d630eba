"""A growth plan: which neurons are split into how many copies, where the copies go, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.eigen.held_out import mean_and_error
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.cost import count
from nni_s3d.growth.graph.theta import dimension
from nni_s3d.growth.selection.new_neurons import NewNeurons
from nni_s3d.growth.selection.schemes import scheme
from nni_s3d.growth.selection.settings import COPIES, check_c, check_triplet


@dataclass(frozen=True, eq=False)
class GrowthPlan:
    """What `split` carries out. Dictionaries by group hold every splittable group, in the order of the graph."""

    copies: dict[str, Tensor]  # (width,) int64, 1 = not split
    weights: dict[str, Tensor]  # (new width,) output weights w_j, the copies of a neuron side by side
    displacements: dict[str, Tensor]  # (new width, d) delta_j; a group that does not move is left out
    gain: float  # <= 0: the predicted change of the loss is epsilon^2 / 2 * gain; fits the noise of its samples, too
    params: int  # exact, of the grown network
    macs: int
    flops: int
    held_out_gain: float | None = None  # the gain on samples that the directions do not come from; None without folds
    held_out_error: float | None = None  # its standard error
    seed: int | None = None  # of what new neurons read, if the second copies are new neurons
    relative: bool = False  # displacements, gain and epsilon are in units of each neuron's |theta_i|

    @property
    def widths(self) -> dict[str, int]:
        """Width of every splittable group after the split."""
        return {name: int(copies.sum()) for name, copies in self.copies.items()}

    @property
    def neurons(self) -> int:
        """How many neurons are split."""
        return sum(int((copies > 1).sum()) for copies in self.copies.values())

    def to_json(self) -> dict[str, object]:
        """Return what a person wants to read, as plain JSON: no weights, no displacements."""
        return {
            "copies": {name: copies.tolist() for name, copies in self.copies.items()},
            "widths": self.widths,
            "gain": self.gain,
            "held_out_gain": self.held_out_gain,
            "held_out_error": self.held_out_error,
            "params": self.params,
            "macs": self.macs,
            "flops": self.flops,
            "seed": self.seed,
            "relative": self.relative,
        }

    def to_tensors(self) -> dict[str, Tensor]:
        """Return everything that is not in `to_json`, for a safetensors file."""
        return {f"{field}/{name}": tensor for field in _TENSORS for name, tensor in getattr(self, field).items()}

    @classmethod
    def load(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GrowthPlan:
        """Put a plan together again from what `to_json` and `to_tensors` returned.

        Raises:
            ModelError: they are something else.
        """
        if "relative" not in content:
            expected = "expected one that says in which unit epsilon is measured"
            raise ModelError(f"plan: {expected}, got one of an older version; start again with a new store")
        parts: dict[str, Any] = {field: {} for field in _TENSORS}
        try:
            for key, tensor in tensors.items():
                field, _, name = key.partition("/")
                parts[field][name] = tensor
            parts["copies"] = {name: parts["copies"][name] for name in content["copies"]}
            numbers = {name: content[name] for name in _NUMBERS}
            plan = cls(**parts, **numbers)
            fits = plan.to_json() == dict(content) and all(
                len(plan.weights[n]) == width == len(plan.displacements.get(n, plan.weights[n]))
                for n, width in plan.widths.items()
            )
        except (LookupError, TypeError) as error:
            found = f"{type(error).__name__}: {error}"
            raise ModelError(f"plan: expected what to_json and to_tensors return, got {found}") from error
        if not fits:
            raise ModelError("plan: expected JSON and tensors of one plan, got those of two")
        return plan


_TENSORS = ("copies", "weights", "displacements")
_NUMBERS = ("gain", "params", "macs", "flops", "held_out_gain", "held_out_error", "seed", "relative")


def plan_from_copies(
    graph: ChannelGraph,
    copies: Mapping[str, Tensor],
    spectrum: Mapping[str, Spectrum] | NewNeurons | None = None,
    *,
    c: float = 1.3,
    triplet: str = "optimal",
    theta_norms: Mapping[str, Tensor] | None = None,
) -> GrowthPlan:
    """Return the plan that splits every neuron into a given number of copies by its best scheme.

    Args:
        graph: the channel graph of the model.
        copies: {group: (width,) of 1, 2, 3 and 4}; groups that are left out are not split.
        spectrum: {group: Spectrum}, or new neurons; without it the copies do not move, and their output weights are
            those of the schemes (5), (9) and (11).
        c: bound on sum_j |w_j|, at least 1.
        triplet: "optimal" or "paper", see `scheme`.
        theta_norms: {group: (width,)} |theta|, for a relative plan: displacements and gain in units of |theta|.

    Raises:
        ConfigError: a number of copies, c or triplet is out of range.
        ModelError: no such group, a group that cannot be split, copies or a spectrum of another shape, or a spectrum
            that is not finite.
    """
    check_c(c)
    check_triplet(triplet)
    if not isinstance(copies, Mapping):
        raise ConfigError(f"copies: expected a mapping {{group: copies of every neuron}}, got {copies!r}")
    chosen = {group.name: torch.ones(group.width, dtype=torch.int64) for group in graph.splittable_groups}
    for name, number in copies.items():
        chosen[name] = _checked(graph[name], number)
    every = graph.per_channel(chosen)
    cost = count(graph, every)
    if isinstance(spectrum, NewNeurons):
        parts = _joined(graph, chosen, spectrum)
    else:
        parts = _moved(graph, chosen, every, spectrum or {}, c, triplet, theta_norms)
    return GrowthPlan(
        chosen, **parts, params=cost.params, macs=cost.macs, flops=cost.flops, relative=theta_norms is not None
    )


def _moved(
    graph: ChannelGraph,
    chosen: Mapping[str, Tensor],
    every: Tensor,
    spectrum: Mapping[str, Spectrum],
    c: float,
    triplet: str,
    theta_norms: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """Return what is special about a plan whose copies move along eigenvectors."""
    known = {name: _fitting(graph, name, spectrum[name]) for name in chosen if name in spectrum}
    low, high = torch.zeros(2, graph.num_channels, dtype=torch.float64)
    for name, found in known.items():
        low[graph[name].channels], high[graph[name].channels] = found.lambda_min, found.lambda_max
    schemes = _schemes(every, low, high, c, triplet)
    neuron = torch.arange(graph.num_channels).repeat_interleave(every)
    unit = squared_norms(graph, theta_norms)
    # The gain of a neuron, sum_j w_j delta_j' S delta_j, is linear in both quotients v' S v.
    on_min, on_max = (unit.new_zeros(graph.num_channels).index_add(0, neuron, schemes[0] * a**2) for a in schemes[1:])
    on_min, on_max = on_min * unit, on_max * unit
    weights, displacements = {}, {}
    held_out: list[Tensor] = []  # the gain on every fold
    shares = torch.ones(1)
    ends = every.cumsum(0).tolist()
    for name, number in chosen.items():
        channels = graph[name].channels
        mine = slice(ends[channels.stop - 1] - int(number.sum()), ends[channels.stop - 1])
        weights[name] = schemes[0][mine]
        if name in known:
            vectors, folds = known[name].v_min, known[name].held_out
            weights[name], along_min, along_max = (part[mine].to(vectors) for part in schemes)
            displacements[name] = _displacements(number, along_min, along_max, known[name])
            if folds is not None:
                held_out.append(folds.total(on_min[channels].to(vectors), on_max[channels].to(vectors)))
                shares = folds.shares
    gain = float(on_min @ low + on_max @ high)
    return {"weights": weights, "displacements": displacements, "gain": gain} | _honest(held_out, shares)


def _joined(graph: ChannelGraph, chosen: Mapping[str, Tensor], new_neurons: NewNeurons) -> dict[str, Any]:
    """Return what is special about a plan whose second copies are new neurons."""
    check_new_neurons(graph, new_neurons)
    for name, number in chosen.items():
        if number.max() > 2:
            raise ConfigError(f"{name}: expected at most 2 copies, the second a new neuron, got {number.max()}")
    weights = {name: 1 - second_copies(number).float() for name, number in chosen.items()}
    return {"weights": weights, "displacements": {}, "gain": 0.0, "seed": new_neurons.seed}


def _honest(held_out: list[Tensor], shares: Tensor) -> dict[str, float]:
    """Return the gain on other samples and its error, from those of every group (folds,)."""
    if not held_out:
        return {}
    gain, error = mean_and_error(torch.stack(held_out).sum(dim=0), shares)
    return {"held_out_gain": gain, "held_out_error": error}


def check_new_neurons(graph: ChannelGraph, new_neurons: NewNeurons) -> None:
    """Raise ModelError unless there is a priority of every neuron of this graph."""
    for group in graph.splittable_groups:
        found = new_neurons.priorities.get(group.name)
        if found is None or len(found) != group.width:
            shown = "none" if found is None else len(found)
            raise ModelError(f"{group.name}: expected {group.width} priorities of new neurons, got {shown}")


def second_copies(number: Tensor) -> Tensor:
    """Return which of the copies of one group (new width,) bool are second ones, for 1 or 2 copies of every neuron."""
    neuron = torch.arange(len(number)).repeat_interleave(number)
    second = torch.zeros(len(neuron), dtype=torch.bool)
    second[1:] = neuron[1:] == neuron[:-1]
    return second


def squared_norms(graph: ChannelGraph, theta_norms: Mapping[str, Tensor] | None) -> Tensor:
    """Return |theta|^2 of every channel, or ones if theta_norms do not matter; (channels,) float64."""
    found = torch.ones(graph.num_channels, dtype=torch.float64)
    for name, length in (theta_norms or {}).items():
        found[graph[name].channels] = length.to(found) ** 2
    return found


def _checked(group: ChannelGroup, number: object) -> Tensor:
    if not group.splittable:
        raise ModelError(f"{group.name}: expected a splittable group, but {group.reason}")
    try:
        copies = torch.as_tensor(number).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{group.name}: expected copies of every neuron, got {number!r}") from error
    if copies.shape != (group.width,):
        raise ModelError(f"{group.name}: expected copies of shape ({group.width},), got {tuple(copies.shape)}")
    allowed = (1, *COPIES)
    wrong = [number for number in copies.tolist() if number is True or number not in allowed]
    if wrong:
        raise ConfigError(f"{group.name}: expected 1, 2, 3 or 4 copies of every neuron, got {wrong[0]!r}")
    return copies.to(torch.int64)


def _fitting(graph: ChannelGraph, name: str, found: Spectrum) -> Spectrum:
    expected = (graph[name].width, dimension(graph[name], graph.shapes))
    if found.v_min.shape != expected:
        raise ModelError(f"{name}: expected eigenvectors of shape {expected}, got {tuple(found.v_min.shape)}")
    if not (found.v_min.sum() + found.v_max.sum()).isfinite():
        raise ModelError(f"{name}: expected finite eigenvectors, got others")
    return found


def _schemes(number: Tensor, low: Tensor, high: Tensor, c: float, triplet: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights and positions along both eigenvectors of all copies (new channels,), side by side."""
    start = number.cumsum(0) - number
    weights, along_min, along_max = low.new_zeros(3, int(number.sum()))
    weights[start] = 1
    for m in COPIES:
        neurons = (number == m).nonzero()[:, 0]
        places = start[neurons, None] + torch.arange(m)
        best = scheme(low[neurons], high[neurons], m, c, triplet=triplet)
        weights[places], along_min[places], along_max[places] = best.weights, best.along_min, best.along_max
    return weights, along_min, along_max


def _displacements(number: Tensor, along_min: Tensor, along_max: Tensor, found: Spectrum) -> Tensor:
    """Return how far the copies of one group move (new width, d)."""
    neuron = torch.arange(len(number)).repeat_interleave(number)
    split = (number > 1)[neuron].nonzero()[:, 0]  # what is not split does not move
    moves = found.v_min.new_zeros(len(neuron), found.v_min.shape[1])
    on_min, on_max = along_min[split, None], along_max[split, None]
    moves[split] = on_min * found.v_min[neuron[split]] + on_max * found.v_max[neuron[split]]
    return moves
