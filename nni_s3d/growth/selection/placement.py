"""Where the copies of every neuron go: along eigenvectors, in random directions, or nowhere beside a new neuron.

Each function answers for one kind of evidence with the same `Placement`. Tensors of all copies of a graph or a group
have the copies of a neuron side by side, neurons in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.eigen.held_out import mean_and_error
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.theta import dimension
from nni_s3d.growth.selection.new_neurons import NewNeurons
from nni_s3d.growth.selection.on_demand import OnDemand
from nni_s3d.growth.selection.plan import second_copies
from nni_s3d.growth.selection.priorities import check_priorities
from nni_s3d.growth.selection.random_splits import RandomSplits
from nni_s3d.growth.selection.schemes import Scheme, scheme_of
from nni_s3d.growth.selection.settings import COPIES, SchemeSettings


@dataclass(frozen=True, eq=False)
class Placement:
    """What a plan adds to numbers of copies; the fields are those of `GrowthPlan`."""

    weights: dict[str, Tensor]  # (new width,)
    displacements: Mapping[str, Tensor]  # (new width, d)
    gain: float = 0.0
    held_out_gain: float | None = None
    held_out_error: float | None = None
    seed: int | None = None


def beside_old_neurons(graph: ChannelGraph, copies: Mapping[str, Tensor], evidence: NewNeurons) -> Placement:
    """Leave every neuron where it is, with all the output weight; second copies will be drawn from the seed."""
    check_priorities(graph, evidence.priorities, "new neurons")
    for average in graph.averages:
        if (graph.per_channel(copies)[average.channels] > 1).any():
            expected = f"expected none among the channels that {average.where} averages"
            raise ModelError(f"new neurons: {expected}, where copies must have equal weights; split these")
    _check_pairs(copies, "the second a new neuron")
    weights = {name: 1 - second_copies(numbers).float() for name, numbers in copies.items()}
    return Placement(weights, {}, seed=evidence.seed)


def in_random_directions(graph: ChannelGraph, copies: Mapping[str, Tensor], evidence: RandomSplits) -> Placement:
    """Send the two copies of a neuron opposite ways, each with half the output weight."""
    check_priorities(graph, evidence.priorities, "random splits")
    _check_pairs(copies, "which go opposite ways")
    weights, displacements = {}, {}
    for name, numbers in copies.items():
        directions = evidence.directions[name]
        _check_directions(graph, name, directions, "directions")
        weights[name] = (1 / numbers).repeat_interleave(numbers).to(directions)
        sign = torch.where(second_copies(numbers), -1.0, 1.0) * (numbers > 1).repeat_interleave(numbers)
        neuron = torch.arange(len(numbers)).repeat_interleave(numbers)
        displacements[name] = sign[:, None].to(directions) * directions[neuron]
    return Placement(weights, displacements)


def along_eigenvectors(
    graph: ChannelGraph,
    copies: Mapping[str, Tensor],
    spectra: Mapping[str, Spectrum],
    settings: SchemeSettings,
    theta_norms: Mapping[str, Tensor] | None,
) -> Placement:
    """Send the copies of every neuron where its best scheme says; groups without a spectrum do not move."""
    spectra = {name: spectra[name] for name in copies if name in spectra}
    for name, spectrum in spectra.items():
        _check_directions(graph, name, spectrum.v_min, "eigenvectors")
    of_channels = graph.per_channel(copies)
    lambda_min, lambda_max = eigenvalues(graph, spectra)
    scheme = _schemes_of_all(of_channels, lambda_min, lambda_max, settings, graph.averaged)
    neuron = torch.arange(graph.num_channels).repeat_interleave(of_channels)
    unit = squared_norms(graph, theta_norms)
    # The gain of a neuron, sum_j w_j delta_j' S delta_j, is linear in both quotients v' S v.
    of_min, of_max = (
        unit.new_zeros(graph.num_channels).index_add(0, neuron, scheme.weights * along**2) * unit
        for along in (scheme.along_min, scheme.along_max)
    )
    weights, displacements = {}, {}
    ends = of_channels.cumsum(0).tolist()
    for name, numbers in copies.items():
        end = ends[graph[name].channels.stop - 1]
        of_group = slice(end - int(numbers.sum()), end)
        weights[name] = scheme.weights[of_group]
        if name in spectra:
            v_min = spectra[name].v_min
            weights[name] = weights[name].to(v_min)
            along = (scheme.along_min[of_group].to(v_min), scheme.along_max[of_group].to(v_min))
            displacements[name] = partial(_displacements, name, numbers, *along, spectra[name])
    gain = float(of_min @ lambda_min + of_max @ lambda_max)
    return Placement(weights, OnDemand(displacements), gain, *_held_out(graph, spectra, of_min, of_max))


def eigenvalues(graph: ChannelGraph, spectra: Mapping[str, Spectrum]) -> tuple[Tensor, Tensor]:
    """Return lambda_min and lambda_max (channels,) float64, 0 where there is no spectrum."""
    lambda_min, lambda_max = torch.zeros(2, graph.num_channels, dtype=torch.float64)
    for name, spectrum in spectra.items():
        channels = graph[name].channels
        lambda_min[channels], lambda_max[channels] = spectrum.lambda_min, spectrum.lambda_max
    return lambda_min, lambda_max


def squared_norms(graph: ChannelGraph, theta_norms: Mapping[str, Tensor] | None) -> Tensor:
    """Return |theta|^2 of every channel, or ones for an absolute plan; (channels,) float64.

    Raises:
        ModelError: a splittable group has no norms, or those of another width.
    """
    squared = torch.ones(graph.num_channels, dtype=torch.float64)
    if theta_norms is None:
        return squared
    for group in graph.splittable_groups:
        norms = theta_norms.get(group.name)
        if norms is None or norms.shape != (group.width,):
            shown = "none" if norms is None else tuple(norms.shape)
            raise ModelError(f"theta_norms: {group.name}: expected shape ({group.width},), got {shown}")
        squared[group.channels] = norms.to(squared) ** 2
    return squared


def _schemes_of_all(
    copies: Tensor, lambda_min: Tensor, lambda_max: Tensor, settings: SchemeSettings, averaged: Tensor
) -> Scheme:
    """Return the scheme of all copies (new channels,), and of every neuron (channels,) its gain."""
    start = copies.cumsum(0) - copies  # the first copy of every neuron
    weights, along_min, along_max = lambda_min.new_zeros(3, int(copies.sum()))
    weights[start] = 1
    gain = torch.zeros_like(lambda_min)
    for m in COPIES:
        neurons = (copies == m).nonzero()[:, 0]
        places = start[neurons, None] + torch.arange(m)
        best = scheme_of(lambda_min[neurons], lambda_max[neurons], m, settings, averaged[neurons])
        weights[places], along_min[places], along_max[places] = best.weights, best.along_min, best.along_max
        gain[neurons] = best.gain
    return Scheme(weights, along_min, along_max, gain)


def _displacements(name: str, copies: Tensor, along_min: Tensor, along_max: Tensor, spectrum: Spectrum) -> Tensor:
    """Return how far the copies of one group move (new width, d)."""
    neuron = torch.arange(len(copies)).repeat_interleave(copies)
    # This can be gigabytes, so every number of it is written once and multiplied in place.
    moves = spectrum.v_min.index_select(0, neuron).mul_(along_min[:, None])
    both = along_max.nonzero()[:, 0]  # most copies move along one end alone
    moves.index_add_(0, both, along_max[both, None] * spectrum.v_max[neuron[both]])
    if not moves.sum().isfinite():
        raise ModelError(f"{name}: expected finite eigenvectors, got infinity or NaN")
    return moves


def _held_out(
    graph: ChannelGraph, spectra: Mapping[str, Spectrum], of_min: Tensor, of_max: Tensor
) -> tuple[float, float] | tuple[None, None]:
    """Return the gain on samples that the directions do not come from, and its standard error."""
    gains = []  # of every group on every fold
    for name, spectrum in spectra.items():
        if (folds := spectrum.held_out) is not None:
            channels, shares = graph[name].channels, folds.shares
            gains.append(folds.total(of_min[channels].to(spectrum.v_min), of_max[channels].to(spectrum.v_min)))
    return mean_and_error(torch.stack(gains).sum(dim=0), shares) if gains else (None, None)


def _check_pairs(copies: Mapping[str, Tensor], expected: str) -> None:
    for name, numbers in copies.items():
        if numbers.max() > 2:
            raise ConfigError(f"{name}: expected at most 2 copies, {expected}, got {numbers.max()}")


def _check_directions(graph: ChannelGraph, name: str, vectors: Tensor, kind: str) -> None:
    expected = (graph[name].width, dimension(graph[name], graph.shapes))
    if vectors.shape != expected:
        raise ModelError(f"{name}: expected {kind} of shape {expected}, got {tuple(vectors.shape)}")
