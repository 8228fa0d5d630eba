"""Graphs of small networks and spectra made up for them, for the tests of selection."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d import GrowthPlan, Spectrum
from nni_s3d.growth.graph.averages import Average
from nni_s3d.growth.graph.channels import EqualParts

C = 1.3


def network(*widths: int) -> s3d.ChannelGraph:
    """Return the graph of an MLP with 4 inputs, 3 outputs and these hidden widths."""
    sizes = (4, *widths, 3)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())]
    return s3d.trace(nn.Sequential(*layers[:-1]), torch.zeros(2, 4))


def spectrum_of(graph: s3d.ChannelGraph, ends: list[tuple[float, float]]) -> dict[str, Spectrum]:
    """Return a spectrum with these eigenvalues (lambda_min, lambda_max) for all splittable neurons in their order."""
    found, values = {}, iter(ends)
    for group in graph.splittable_groups:
        low, high = torch.tensor([next(values) for _ in range(group.width)], dtype=torch.float64).T
        d = sum(graph.shapes[p][1:].numel() for layer in group.producers for p in layer.parameters)
        v_min, v_max = (torch.eye(d, dtype=torch.float64)[i].expand(group.width, d) for i in (0, -1))
        zero = torch.zeros(group.width, dtype=torch.float64)
        found[group.name] = Spectrum(low, v_min, high, v_max, zero, zero, zero == 0, 1)
    return found


def random_ends(n: int, seed: int) -> list[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    return [tuple(sorted(rng.standard_normal(2))) for _ in range(n)]


def gains_of(ends: list[tuple[float, float]], copies: tuple[int, ...] = (2, 3, 4)) -> list[list[float]]:
    """Return, for every neuron, the gain with 1, 2, ... copies."""
    low, high = torch.tensor(ends, dtype=torch.float64).T
    rows = [s3d.gain(low, high, m, C).tolist() if m > 1 and m in copies else [0.0] * len(ends) for m in (1, 2, 3, 4)]
    return [list(row) for row in zip(*rows[: max(copies)], strict=True)]


def chosen(plan: GrowthPlan) -> list[int]:
    return torch.cat(list(plan.copies.values())).tolist()


def cut_network(*widths: int, cuts: Sequence[Sequence[Sequence[int]]]) -> s3d.ChannelGraph:
    """Return the graph of `network`, cut into these parts of channels, which are numbered over all groups."""
    return replace(network(*widths), equal_parts=tuple(EqualParts("a cut", torch.tensor(parts)) for parts in cuts))


def averaged_network(
    *widths: int, averages: Sequence[Sequence[int]], cuts: Sequence[Sequence[Sequence[int]]] = ()
) -> s3d.ChannelGraph:
    """Return the graph of `cut_network` with averages over these channels too."""
    of_channels = tuple(Average("a norm", torch.tensor(channels)) for channels in averages)
    return replace(cut_network(*widths, cuts=cuts), averages=of_channels)
