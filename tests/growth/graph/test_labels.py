import pytest
import torch

from nni_s3d.growth.graph.labels import (
    NONE,
    SpreadLabels,
    drop_repeats,
    evenly_cut,
    growing_dim,
    in_same_order,
    interleaved_runs,
)


@pytest.mark.parametrize(
    "labels, shape",
    [
        (torch.arange(3).reshape(1, 3, 1).expand(5, 3, 4), (1, 3, 1)),
        (torch.arange(12).reshape(3, 4), (3, 4)),
        (torch.full((2, 3), NONE), (1, 1)),
        (torch.tensor(7), ()),
        (torch.tensor([[0, 0, 1], [0, 0, 1]]), (1, 3)),
    ],
)
def test_dimensions_along_which_labels_do_not_change_are_dropped(labels, shape):
    found = drop_repeats(labels)
    assert found.shape == shape
    assert torch.equal(found.expand_as(labels), labels)


@pytest.mark.parametrize("runs", [1, 2, 3, 4])
def test_interleaved_runs_are_those_that_a_channel_shuffle_makes(runs):
    shuffled = torch.arange(12).reshape(runs, -1).T.flatten()
    assert interleaved_runs(shuffled) == runs


@pytest.mark.parametrize("slots", [[0, 0, 1, 1, 2, 2], [5], [3, 4, 5], []])
def test_channels_in_order_are_one_run(slots):
    assert interleaved_runs(torch.tensor(slots, dtype=torch.int64)) == 1


def test_channels_in_no_order_are_one_run():
    assert interleaved_runs(torch.tensor([0, 5, 2, 3, 9, 1])) == 1


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ([[0, 1, 2]], [[0], [1], [2]], True),
        ([[0, 1, 2]], [[0, 0, 1, 1, 2, 2]], True),
        ([[0, 1, 2]], [[0, 1]], False),
        ([[0, 1, 2]], [[0, 2, 1]], False),
        ([[0, 1, 2]], [[0, 1, 2, 0, 1, 2]], False),
        ([[0, 1, 2, 3]], [[0, 1], [2, 3]], False),
        ([[0, 1], [2, 3]], [[0, 1, 2, 3]], False),
        ([[NONE]], [[NONE]], True),
    ],
)
def test_channels_in_the_same_order(before, after, same):
    assert in_same_order(torch.tensor(before), torch.tensor(after)) == same


@pytest.mark.parametrize(
    "labels, dim",
    [
        (torch.arange(6).reshape(1, 6, 1), 1),
        (torch.arange(6).reshape(2, 3), 1),  # a view of one layer, in two parts
        (torch.arange(6).reshape(2, 3).T, 0),
        (torch.stack([torch.arange(3), torch.arange(7, 10)], -1), 0),  # two layers that are stacked
        (torch.stack([torch.arange(7, 10), torch.arange(3)]), 1),
        (torch.arange(24).reshape(2, 3, 4), 2),
        (torch.arange(6).reshape(3, 2).repeat_interleave(2, 0), 1),  # heads that are repeated
        (torch.tensor([[5]]), None),
    ],
)
def test_the_dimension_that_grows_is_that_along_which_channels_follow_each_other(labels, dim):
    assert growing_dim(labels) == dim


@pytest.mark.parametrize(
    ("slots", "parts", "expected"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([0, 4, 1, 5, 2, 6, 3, 7], 2, [[0, 1], [4, 5], [2, 3], [6, 7]]),  # each of two interleaved runs
        ([0, 3, 1, 4, 2, 5], 2, [[0, 3, 1], [4, 2, 5]]),  # runs of three have no halves
    ],
)
def test_interleaved_runs_are_cut_evenly(slots, parts, expected):
    assert evenly_cut(torch.tensor(slots), parts).tolist() == expected


def test_labels_that_are_spread_are_found_again():
    spread, slots = SpreadLabels(), torch.tensor([3, 4])
    labels = spread.labels(slots, 4, 1)
    assert labels.shape == (1, 2, 1, 1)
    assert spread.labels(slots, 4, -3) is labels
    assert spread.slots(labels) is slots
    assert spread.slots(torch.tensor([[5], [6]])).tolist() == [5, 6]
