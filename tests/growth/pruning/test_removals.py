import numpy as np
import torch

from nni_s3d.growth.graph.clusters import Cluster, Clusters
from nni_s3d.growth.pruning.removals import find_removals

NONE = torch.zeros(10, dtype=torch.bool)


def cluster(cells, *equations):
    return Cluster(tuple(np.array(cell) for cell in cells), np.array(equations), np.zeros(len(cells), dtype=bool))


def test_single_neurons_go_by_their_rate():
    scores = np.array([4.0, 1, 3, 2])
    removals = find_removals(Clusters((), NONE[:4]), scores, np.array([False, False, True, False]))
    assert removals.channels.tolist() == [0, 1, 3]
    steps = np.arange(3)
    assert removals.sums(np.array([1.0, 2, 3, 4])).tolist() == [1, 2, 4]
    assert removals.first_to_go(steps, np.ones(3)).tolist() == [1, 2, 0]
    assert removals.first_to_go(steps, np.array([8, 1, 1])).tolist() == [0, 1, 2]


def test_cells_lose_their_least_important_neurons_together_and_in_order():
    scores = np.array([5.0, 1, 2, 9, 3, 4, 8, 0])
    found = Clusters((cluster([[0, 1, 2, 3], [4, 5, 6]], [1, -1]),), NONE[:8])
    removals = find_removals(found, scores, np.zeros(8, bool))
    assert removals.channels_of(np.array([0])).tolist() == [7]
    assert sorted(removals.channels_of(np.array([1])).tolist()) == [1, 4]  # and then two stay in the second cell
    assert len(removals) == 2
    assert removals.scores.tolist() == [0, 4]


def test_steps_of_a_cluster_stay_in_their_order_where_prices_differ():
    scores = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    found = Clusters((cluster([[0, 1, 2, 3], [4, 5, 6, 7]], [1, -1]),), NONE[:8])
    removals = find_removals(found, scores, np.zeros(8, bool))
    assert removals.first_to_go(np.arange(2), np.array([1.0, 100.0])).tolist() == [0, 1]


def test_what_is_protected_ends_a_chain():
    scores = np.arange(10.0)
    found = Clusters((cluster([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [1, -1]),), NONE)
    protected = np.zeros(10, bool)
    protected[6] = True
    assert len(find_removals(found, scores, protected)) == 1


def test_cells_of_several_ratios_take_the_smallest_step():
    cells = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11, 12, 13]]
    found = Clusters((cluster(cells, [1, 1, -1]),), torch.zeros(14, dtype=torch.bool))
    assert found.clusters[0].ratio is None
    removals = find_removals(found, np.arange(14.0), np.zeros(14, bool))
    assert [sorted(removals.channels_of(np.array([n])).tolist()) for n in range(2)] == [[0, 4, 8, 9], [1, 5, 10, 11]]
