import numpy as np
import pytest
import torch

from nni_s3d.growth.rehearsal.along_channels import AlongChannels

COPIES = torch.tensor([2, 1, 3])  # the new channels are 0 0 1 2 2 2 of the old ones


def along(shape: tuple[int, ...], *channels: int) -> np.ndarray:
    return np.array(channels).reshape(shape)


def test_what_belongs_to_a_neuron_belongs_to_each_of_its_copies():
    value = torch.tensor([[10.0, 20.0, 30.0, 5.0]])
    before, after = along((1, 4), 0, 1, 2, -1), along((1, 7), 0, 1, 2, 3, 4, 5, -1)
    wanted = AlongChannels(COPIES).expected(value, before, after, torch.Size([1, 7]))
    assert wanted.tolist() == [[10, 10, 20, 30, 30, 30, 5]]


def test_copies_may_lie_in_another_order():
    value = torch.tensor([[10.0, 20.0, 30.0]])
    before, after = along((1, 3), 0, 1, 2), along((1, 6), 3, 0, 4, 2, 1, 5)
    wanted = AlongChannels(COPIES).expected(value, before, after, torch.Size([1, 6]))
    assert wanted.tolist() == [[30, 10, 30, 20, 10, 30]]


def test_several_positions_of_a_channel_stay_in_their_order():
    value = torch.tensor([1.0, 2.0, 3.0, 4.0])
    before, after = along((4,), 0, 0, 1, 1), along((6,), 0, 0, 1, 1, 2, 2)
    wanted = AlongChannels(COPIES).expected(value, before, after, torch.Size([6]))
    assert wanted.tolist() == [1, 2, 1, 2, 3, 4]


def test_channels_along_several_dimensions():
    copies = torch.tensor([2, 1, 1, 2])
    value = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])  # heads of two channels each
    before, after = along((2, 2, 1), 0, 1, 2, 3), along((2, 3, 1), 0, 1, 2, 3, 4, 5)
    wanted = AlongChannels(copies).expected(value, before, after, torch.Size([2, 3, 1]))
    assert wanted[..., 0].tolist() == [[1, 1, 2], [3, 4, 4]]
    assert AlongChannels(copies).in_place(before).tolist() == after.tolist()
    assert AlongChannels(copies).in_place(before, dim=0).tolist() == [[[0], [2]], [[1], [4]], [[3], [5]]]
    assert AlongChannels(copies).in_place(along((2, 2), 0, 3, 1, 2)) is None


@pytest.mark.parametrize(
    ("after", "shape"),
    [
        (along((1, 5), 0, 1, 2, 3, 4), (1, 5)),  # a copy is missing
        (along((1, 6), 0, 0, 2, 3, 4, 5), (1, 6)),  # and here is another one in its place
        (along((1, 6), 0, 1, 2, 3, 4, 5), (2, 6)),  # something else has grown too
        (along((6,), 0, 1, 2, 3, 4, 5), (6,)),
        (along((2, 3), 0, 1, 2, 3, 4, 5), (2, 3)),  # they run along what were positions
        (None, (1, 6)),
    ],
)
def test_nothing_can_be_expected_where_channels_are_others(after, shape):
    before = along((1, 3), 0, 1, 2)
    assert (
        AlongChannels(COPIES).expected(torch.zeros(2 if shape == (2, 3) else 1, 3), before, after, torch.Size(shape))
        is None
    )


def test_what_has_no_channels_stays_as_it_is():
    value = torch.randn(3)
    assert AlongChannels(COPIES).expected(value, None, None, torch.Size([3])) is value
    assert AlongChannels(COPIES).expected(value, None, None, torch.Size([4])) is None


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 3, 1, 1)])
def test_copies_beside_their_neurons(shape):
    placed = AlongChannels(COPIES).in_place(along(shape, 0, 1, 2))
    assert placed.ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert placed.shape == tuple(6 if size == 3 else 1 for size in shape)
    assert AlongChannels(COPIES).in_place(along((1, 1, 1), 0)).shape == (1, 2, 1)
