import random

import pytest
import torch

from nni_s3d.growth.graph.union_find import UnionFind


@pytest.mark.parametrize("seed", range(20))
def test_roots_by_flooding(seed):
    chance, size = random.Random(seed), 30
    pairs = [(chance.randrange(size), chance.randrange(size)) for _ in range(seed)]
    same = UnionFind()
    assert same.fresh(10).tolist() == list(range(10))
    assert same.fresh(size - 10).tolist() == list(range(10, size))
    for a, b in pairs[::2]:
        same.union(a, b)
    if rest := pairs[1::2]:
        same.union(*torch.tensor(rest).T)
    expected = list(range(size))
    for _ in range(size):
        for a, b in pairs:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert same.roots().tolist() == expected
    assert [same.find(item) for item in range(size)] == expected


def test_pairs_with_no_channel_are_left_out():
    same = UnionFind()
    same.fresh(4)
    same.union(torch.tensor([[0, -1], [3, -1]]), torch.tensor([[-1, 2], [1, -1]]))
    assert same.roots().tolist() == [0, 1, 2, 1]


def test_unions_after_a_look_count():
    same = UnionFind()
    same.fresh(3)
    same.union(1, 2)
    assert same.find(2) == 1
    same.union(0, 1)
    assert same.find(2) == 0
    assert same.fresh(1).tolist() == [3]
    assert same.find(3) == 3
