"""Clusters against brute force: they ask for no more and no less than the cuts."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import EqualParts
from nni_s3d.growth.graph.clusters import Clusters, equations, find_clusters
from tests.cases import BY_NAME, measured
from tests.growth.selection.made_up import averaged_network, cut_network
from tests.wide import WIDE

CASES = {case.name: case for case in WIDE}


def are_equal(graph: s3d.ChannelGraph, copies: torch.Tensor) -> bool:
    """Whether the parts of every cut are equally large."""
    numbers = [*copies.tolist(), 1]
    return all(len({sum(numbers[c] for c in part) for part in cut.parts.tolist()}) == 1 for cut in graph.equal_parts)


def allowed(found: Clusters, copies: torch.Tensor) -> bool:
    extra = (copies - 1).numpy()
    if extra[found.fixed.numpy()].any():
        return False
    sums = [np.array([extra[cell].sum() for cell in cluster.cells]) for cluster in found.clusters]
    return not any((cluster.equations @ s).any() for cluster, s in zip(found.clusters, sums, strict=True))


@pytest.mark.parametrize("name", ["grouped", "grouped-gate", "shuffled", "split"])
def test_equations_say_that_parts_grow_alike(name):
    graph = measured(CASES[name]).graph
    matrix = equations(graph.equal_parts, graph.num_channels)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(50):
        copies = torch.randint(1, 3, (graph.num_channels,), generator=generator)
        holds = not (matrix @ (copies - 1).numpy()).any()
        assert holds == are_equal(graph, copies)
        seen.add(holds)
    assert not (matrix @ np.full(graph.num_channels, 2)).any()
    assert False in seen


CUTS = {
    "halves": [[[0, 1], [2, 3]]],
    "blocks of two groups": [[[0, 1, 2], [3, 4, 5]]],
    "overlapping": [[[0, 1], [2, 3]], [[0, 2], [1, 3]]],
    "two cuts of the same": [[[0, 1], [2, 3]], [[0, 1], [2, 3]]],
    "finer and coarser": [[[0], [1], [2], [3]], [[0, 1], [2, 3]]],
    "one part twice as often": [[[0, 0], [1, 2]]],
    "shared by all parts": [[[0, 1], [0, 2]]],
    "the same in all parts": [[[0, 1], [1, 0]]],
    "a part without channels": [[[0, 1], [-1, -1]], [[1, 2], [3, 4]]],
    "only half a part": [[[0, 1], [2, -1]]],
    "several ratios": [[[0, 1], [2, 3]], [[0, 4], [2, 5]], [[1], [5]]],
    "two clusters": [[[0], [1]], [[3], [4]]],
}


@pytest.mark.parametrize("refused", [(), ("2",)])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_clusters_ask_for_what_the_cuts_ask_for(cuts, refused):
    graph = cut_network(4, 2, cuts=cuts)  # channels 0 to 3, and 4 and 5
    graph = graph.refuse_others(graph.widths.keys() - set(refused), "it is left alone")
    found, growing = find_clusters(graph), torch.zeros(graph.num_channels, dtype=torch.bool)
    for group in graph.splittable_groups:
        growing[group.channels] = True
    for choice in product((1, 2, 3), repeat=6):
        copies = torch.where(growing, torch.tensor([*choice, 1, 1, 1]), 1)
        assert allowed(found, copies) == are_equal(graph, copies)
    for cluster in found.clusters:
        assert all(len(set(graph_of(graph, cell))) == 1 for cell in cluster.cells)


def graph_of(graph: s3d.ChannelGraph, cell: np.ndarray) -> list[str]:
    return [group.name for c in cell.tolist() for group in graph if group.first <= c < group.first + group.width]


@pytest.mark.parametrize(
    ("cuts", "ratios"),
    [
        (CUTS["halves"], [[1, 1]]),
        (CUTS["one part twice as often"], [[1, 2]]),
        (CUTS["shared by all parts"], [[1, 1]]),
        (CUTS["the same in all parts"], []),
        (CUTS["two clusters"], [[1, 1], [1, 1]]),
        (CUTS["blocks of two groups"], [None]),  # channels 3 and 4 are of two groups
        (CUTS["several ratios"], [None]),
        (CUTS["overlapping"], [None]),
    ],
)
def test_ratios(cuts, ratios):
    found = find_clusters(cut_network(4, 2, cuts=cuts))
    assert [None if c.ratio is None else c.ratio.tolist() for c in found.clusters] == ratios


def test_cuts_of_refused_groups_do_not_matter():
    graph = measured(CASES["grouped"]).graph
    assert find_clusters(graph).clusters
    groups = tuple(replace(group, reason="refused") for group in graph)
    found = find_clusters(replace(graph, groups=groups))
    assert not found.clusters
    assert not found.inside.any()


def test_channels_whose_counterpart_cannot_grow_are_fixed():
    graph = cut_network(4, 2, cuts=[[[0, 1], [4, 5]], [[1, 2], [3, 3]]]).refuse_others({"0"}, "it is left alone")
    found = find_clusters(graph)
    assert found.fixed.nonzero()[:, 0].tolist() == [0, 1]
    assert [[cell.tolist() for cell in cluster.cells] for cluster in found.clusters] == [[[2], [3]]]
    assert found.clusters[0].ratio.tolist() == [2, 1]


def test_graphs_without_cuts_have_no_clusters():
    graph = measured(BY_NAME["mlp-tanh"]).graph
    assert not find_clusters(graph).clusters
    assert equations((), graph.num_channels).shape == (0, graph.num_channels)


AVERAGES = {
    "one": ([[0, 1, 2]], ()),
    "of two groups": ([[2, 3, 4, 5]], ()),
    "two that meet": ([[0, 1], [1, 4]], ()),
    "two apart": ([[0, 1], [4, 5]], ()),
    "halves of one": ([[0, 1, 2, 3]], CUTS["halves"]),
    "a half and one that is cut": ([[0, 1]], CUTS["halves"]),
    "both halves": ([[0, 1], [2, 3]], CUTS["halves"]),
    "across the halves": ([[0, 2, 4]], CUTS["halves"]),
    "a part that cannot grow": ([[0, 1]], [[[0], [-1]]]),
}


@pytest.mark.parametrize("refused", [(), ("2",)])
@pytest.mark.parametrize("name", AVERAGES)
def test_clusters_ask_for_what_averages_ask_for(name, refused):
    averages, cuts = AVERAGES[name]
    graph = averaged_network(4, 2, averages=averages, cuts=cuts)
    graph = graph.refuse_others(graph.widths.keys() - set(refused), "it is left alone")
    found, growing = find_clusters(graph), torch.zeros(graph.num_channels, dtype=torch.bool)
    for group in graph.splittable_groups:
        growing[group.channels] = True
    for choice in product((1, 2, 3), repeat=6):
        copies = torch.where(growing, torch.tensor([*choice, 1, 1, 1]), 1)
        alike = all(len(set(copies[channels].tolist())) == 1 for channels in averages)
        assert _allowed_steps(found, copies) == (alike and are_equal(graph, copies))


def _allowed_steps(found: Clusters, copies: torch.Tensor) -> bool:
    extra = (copies - 1).numpy()
    if extra[found.fixed.numpy()].any():
        return False
    for cluster in found.clusters:
        if any(len(set(extra[c])) > 1 for c, alike in zip(cluster.cells, cluster.alike, strict=True) if alike):
            return False
        pairs = zip(cluster.cells, cluster.alike, strict=True)
        steps = np.array([extra[cell][0] if alike else extra[cell].sum() for cell, alike in pairs])
        if (cluster.equations @ steps).any():
            return False
    return True


def test_channels_that_are_averaged_are_one_cell_and_one_step():
    (cluster,) = find_clusters(averaged_network(4, 2, averages=[[0, 1, 2]])).clusters
    assert [cell.tolist() for cell in cluster.cells] == [[0, 1, 2]]
    assert (cluster.alike.tolist(), cluster.ratio.tolist(), cluster.steps(3).tolist()) == ([True], [1], [3])


def test_the_blocks_of_a_grouped_convolution_are_cells():
    found = find_clusters(measured(CASES["grouped"]).graph)
    assert [[len(cell) for cell in cluster.cells] for cluster in found.clusters] == [[3, 3], [3, 3]]
    assert isinstance(measured(CASES["grouped"]).graph.equal_parts[0], EqualParts)
