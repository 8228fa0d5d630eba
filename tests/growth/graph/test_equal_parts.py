from dataclasses import replace

import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import EqualParts
from nni_s3d.growth.graph.equal_parts import check_equal_parts, in_equal_parts, smallest_step, unequal_cut
from tests.cases import BY_NAME, measured
from tests.growth.selection.made_up import averaged_network
from tests.wide import WIDE, random_case

CASES = {case.name: case for case in WIDE}
CUT = pytest.mark.parametrize("name", ["grouped", "grouped-gate", "shuffled", "split"])


def sizes(graph: s3d.ChannelGraph, copies: torch.Tensor) -> list[set[int]]:
    """Return the sizes of the parts of each cut."""
    found = []
    for cut in graph.equal_parts:
        found.append({sum(int(copies[c]) if c >= 0 else 1 for c in part) for part in cut.parts.tolist()})
    return found


@CUT
def test_copies_are_raised_as_little_as_possible(name):
    graph = measured(CASES[name]).graph
    group = next(g for g in graph.splittable_groups if bool(in_equal_parts(graph)[g.channels].any()))
    wanted = torch.ones(group.width, dtype=torch.int64)
    wanted[0] = 3
    found = s3d.with_equal_parts(graph, {group.name: wanted})
    copies = graph.per_channel(found)
    check_equal_parts(graph, copies)
    assert bool((found[group.name] >= wanted).all())
    assert all(len(one) == 1 for one in sizes(graph, copies))
    again = s3d.with_equal_parts(graph, found)
    assert all(torch.equal(number, found[name]) for name, number in again.items())


@CUT
def test_the_smallest_step_is_the_number_of_parts(name):
    graph = measured(CASES[name]).graph
    for group in graph.splittable_groups:
        step = smallest_step(graph, group.name)
        assert (step > 1) <= bool(in_equal_parts(graph)[group.channels].any())
        assert group.width % step == 0


def test_unequal_parts_are_refused_by_the_layer_that_cuts():
    graph = measured(CASES["grouped"]).graph
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    copies[graph["reduce"].first] = 2
    said = r"plan: expected 2 equal parts where grouped\.weight cuts its channels, got 3 to 4 channels"
    with pytest.raises(s3d.ModelError, match=said):
        check_equal_parts(graph, copies)


def test_graphs_without_cuts_have_no_parts():
    graph = measured(BY_NAME["mlp-tanh"]).graph
    assert not in_equal_parts(graph).any()
    assert smallest_step(graph, "0") == 1


def test_averaged_channels_get_as_many_copies_as_one_of_them_has():
    graph = averaged_network(4, 2, averages=[[0, 1, 2]], cuts=[[[0, 1], [3, 4]]])
    found = s3d.with_equal_parts(graph, {"0": torch.tensor([1, 2, 1, 1])})
    assert found["0"][:3].tolist() == [2, 2, 2]
    assert found["0"][3] + found["2"][0] == 4  # two more, as the other part has
    assert found["2"][1] == 1
    assert [smallest_step(graph, name) for name in ("0", "2")] == [2, 1]


def test_parts_that_never_become_equal_are_refused():
    graph = measured(CASES["grouped"]).graph
    cut = graph.equal_parts[0]
    none = torch.full_like(cut.parts[0], -1)
    impossible = replace(graph, equal_parts=(EqualParts("a slice", torch.stack([cut.parts[0], none])),))
    copies = {group.name: torch.full((group.width,), 2) for group in graph.splittable_groups}
    with pytest.raises(
        s3d.ModelError,
        match="copies: expected numbers that keep the parts equal into which a slice cuts or averages channels, got",
    ):
        s3d.with_equal_parts(impossible, copies)


def test_masks_are_filled_up_with_as_few_neurons_as_possible():
    graph = measured(CASES["grouped"]).graph
    masks = {"reduce": torch.tensor([1, 0, 0, 0, 1, 1]).bool(), "stem": [True, False, False, True]}
    filled = s3d.with_equal_parts(graph, masks)
    assert filled["reduce"].tolist() == [True, True, False, False, True, True]
    assert filled["stem"].tolist() == masks["stem"]
    assert filled["grouped"].all()
    assert unequal_cut(graph, graph.per_channel(filled)) is None


@pytest.mark.parametrize("case", [*CASES.values(), *(random_case(seed) for seed in range(20))], ids=lambda c: c.name)
def test_masks_that_fit_stay_and_others_grow(case):
    graph = measured(case).graph
    generator = torch.Generator().manual_seed(0)
    masks = {g.name: torch.rand(g.width, generator=generator) < 0.4 for g in graph.splittable_groups}
    filled = s3d.with_equal_parts(graph, masks)
    check_equal_parts(graph, graph.per_channel(filled))
    assert all(bool((filled[name] >= mask).all()) for name, mask in masks.items())
    again = s3d.with_equal_parts(graph, filled)
    assert all(torch.equal(again[name], mask) for name, mask in filled.items())
    if not graph.equal_parts and not graph.averages:
        assert all(torch.equal(filled[name], mask) for name, mask in masks.items())


def test_channels_that_cannot_change_stay_in_masks():
    graph = measured(CASES["grouped"]).graph
    cut = graph.equal_parts[1]
    first = torch.stack([cut.parts[0], torch.full_like(cut.parts[0], -1)])
    fixed = replace(graph, equal_parts=(EqualParts("a slice", first),))
    masks = {group.name: torch.zeros(group.width, dtype=torch.bool) for group in graph.splittable_groups}
    assert s3d.with_equal_parts(fixed, masks)["reduce"].tolist() == [True] * 3 + [False] * 3
