import pytest
import torch

from nni_s3d.errors import ModelError
from nni_s3d.growth.surgery.slots import in_place, sources


@pytest.mark.parametrize(
    ("slots", "copies", "source", "which"),
    [
        ([0, 1, 2], [1, 2, 3], [0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]),
        ([0, 0, 1, 1], [2, 1], [0, 1, 0, 1, 2, 3], [0, 0, 1, 1, 0, 0]),
        ([0, 1, 0, 1], [2, 1], [0, 0, 1, 2, 2, 3], [0, 1, 0, 0, 1, 0]),
        ([-1, 0, -1, -1], [2], [0, 1, 1, 2, 3], [0, 0, 1, 0, 0]),
        ([-1, -1], [3], [0, 1], [0, 0]),
        ([1, 0], [1, 2], [0, 0, 1], [0, 1, 0]),
    ],
)
def test_repeated_slots(slots, copies, source, which):
    slots, copies = torch.tensor(slots), torch.tensor(copies)
    start = copies.cumsum(0) - copies
    expected = [start[slots[s]] + k if slots[s] >= 0 else -1 for s, k in zip(source, which, strict=True)]
    assert in_place(slots, copies).tolist() == [int(new) for new in expected]


def test_the_example_of_the_docstring():
    slots, copies = torch.tensor([0, 0, 1, 1, -1]), torch.tensor([2, 1])
    new = in_place(slots, copies)
    assert new.tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert sources("a", slots, new, torch.tensor([0, 0, 1])).tolist() == [0, 1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(20))
def test_sources_by_counting(seed):
    generator = torch.Generator().manual_seed(seed)
    slots = torch.randint(-1, 4, (12,), generator=generator)
    copies = torch.randint(1, 5, (4,), generator=generator)
    parents = torch.arange(4).repeat_interleave(copies)
    new = in_place(slots, copies)
    new = new[torch.randperm(len(new), generator=generator)]  # a shuffle lies between
    expected = []
    for place, channel in enumerate(new.tolist()):
        rank = new[:place].tolist().count(channel)
        of_parent = (slots == (parents[channel] if channel >= 0 else -1)).nonzero()[:, 0]
        expected.append(int(of_parent[rank]))
    assert sources("a", slots, new, parents).tolist() == expected


@pytest.mark.parametrize("new", [[0, 0, 1], [0, -1], [1, 1]])
def test_slots_without_one_to_be_copied_from_are_refused(new):
    with pytest.raises(ModelError, match=r"a\.weight: expected the copies of a neuron side by side, got others"):
        sources("a.weight", torch.tensor([0, 1]), torch.tensor(new), torch.tensor([0, 1]))
