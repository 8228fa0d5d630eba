import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.equal_parts import check_equal_parts
from nni_s3d.growth.graph.following import with_attributes
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from nni_s3d.growth.rehearsal.pattern import random_copies, rehearsed_copies, stuck
from tests.cases import all_cases, measured
from tests.growth.selection.made_up import averaged_network
from tests.wide import WIDE

wide_cases = pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)


@wide_cases
def test_all_parts_grow_alike(case):
    graph = measured(case).graph
    copies = rehearsed_copies(graph, graph.splittable_groups)
    check_equal_parts(graph, copies)
    assert all(copies[group.channels].max() > 1 for group in graph.splittable_groups)
    assert copies.min() == 1 or copies.numel() < 10
    assert copies.max() <= 4


@all_cases
def test_only_the_groups_that_are_named_grow(case):
    graph = measured(case).graph
    for group in graph.splittable_groups:
        copies = rehearsed_copies(graph.refuse_others({group.name}, "it is left alone"), [group])
        assert copies[group.channels].max() > 1
        copies[group.channels] = 1
        assert (copies == 1).all()


@wide_cases
def test_random_copies_leave_equal_parts(case):
    graph = measured(case).graph
    first, second = (random_copies(graph, graph.splittable_groups, seed) for seed in (0, 1))
    for copies in (first, second):
        assert copies is not None
        check_equal_parts(graph, copies)
        assert copies.min() >= 1
        assert copies.max() <= 4
    assert not torch.equal(first, second) or copies.numel() < 20


def test_two_groups_have_two_patterns():
    graph = measured(next(case for case in WIDE if case.name == "constants")).graph
    copies = rehearsed_copies(graph, graph.splittable_groups)
    first, second = (copies[group.channels] for group in graph.splittable_groups[:2])
    assert len(first) == len(second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("width", "most"), [(16, 1.4), (128, 1.3), (1024, 1.04)])
def test_a_wide_group_grows_a_little(width, most):
    graph = read_graph(nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2)), torch.randn(3, 4))
    copies = rehearsed_copies(graph, graph.splittable_groups)[graph["0"].channels]
    assert copies[0] > 1
    assert width < copies.sum() <= most * width


def test_channels_grow_that_an_attribute_counts_and_others_that_it_does_not():
    whole = read_graph(nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 2)), torch.randn(3, 4))
    graph = with_attributes(whole, [WidthAttribute("", "width", None, torch.arange(9, 12)[None])])
    copies = rehearsed_copies(replace(graph, groups=whole.groups), whole.splittable_groups)[:16]
    counted = int((copies[9:12] - 1).sum())
    assert 0 < counted != int((copies - 1).sum()) - counted > 0


class Halves(nn.Module):
    """Two layers whose outputs are the halves of one cut: neither can grow without the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        first, second = torch.cat([self.a(x), self.b(x)], dim=1).tanh().chunk(2, dim=1)
        return self.c(first) + self.d(second)


def test_groups_that_cannot_grow_alone_are_refused():
    torch.manual_seed(0)
    graph = s3d.trace(Halves(), torch.randn(5, 4))
    assert [group.name for group in graph.splittable_groups if not grows_alone(graph, group)] == ["a", "b"]
    check_equal_parts(graph, rehearsed_copies(graph, graph.splittable_groups))
    for group in graph.splittable_groups:
        with pytest.raises(ModelError, match="expected numbers that keep the parts equal into which chunk cuts"):
            rehearsed_copies(graph.refuse_others({group.name}, "it is left alone"), [group])


def grows_alone(graph, group) -> bool:
    """By brute force over the growth of every neuron by none or three."""
    for bits in range(1, 2**group.width):
        copies = torch.ones(graph.num_channels, dtype=torch.int64)
        copies[group.channels] = torch.tensor([1 + 3 * (bits >> i & 1) for i in range(group.width)])
        try:
            check_equal_parts(graph, copies)
        except ModelError:
            continue
        return True
    return False


PROGRAM = """
import sys, torch, nni_s3d as s3d
from torch import nn
s3d.trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 2, 1)), torch.randn(1, 3, 4, 4))
sys.exit("scipy.optimize" in sys.modules)
"""


def test_filling_up_parts_needs_no_integer_program():
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False).returncode == 0


def test_averaged_channels_grow_together_and_every_second_average_by_more():
    graph = averaged_network(4, 2, averages=[[0, 1, 2], [4, 5]])
    for copies in (
        rehearsed_copies(graph, graph.splittable_groups),
        random_copies(graph, graph.splittable_groups, 0),
    ):
        assert len(set(copies[:3].tolist())) == len(set(copies[4:6].tolist())) == 1
    assert rehearsed_copies(graph, graph.splittable_groups)[[0, 4]].tolist() == [2, 3]


def test_averages_with_channels_that_cannot_grow_are_stuck():
    graph = averaged_network(4, 2, averages=[[0, 1, 4]])
    assert not stuck(graph)[:6].any()
    assert stuck(graph.refuse_others({"0"}, "it is left alone"))[:4].tolist() == [True, True, False, False]
