import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.surgery.takers import changed_average, find_takers, slopes
from tests.cases import BY_NAME, measured
from tests.growth.selection.made_up import averaged_network

MLP = BY_NAME["mlp-tanh"]


def test_columns_are_added_to_those_of_the_neuron_that_takes_over():
    run = measured(MLP)
    keep, into = {"0": [0, 1, 3]}, {"0": torch.tensor([7, -9, 3, 0, -1])}  # those of neurons that stay are not read
    pruned = s3d.remove(run.model, run.graph, keep, into=into).model
    columns = run.model[2].weight.detach()
    expected = torch.stack([columns[:, 0], columns[:, 1], columns[:, 3] + columns[:, 2]], 1)
    torch.testing.assert_close(pruned[2].weight.detach(), expected)
    torch.testing.assert_close(pruned[0].weight, run.model[0].weight[[0, 1, 3]])


def test_gradients_are_multiplied_by_the_inverse_of_the_share_of_a_copy():
    model, graph = MLP.model(), measured(MLP).graph
    with torch.no_grad():
        model[2].weight[:, 1] = -0.25 * model[2].weight[:, 0]  # shares of 4/3 and -1/3
        model[2].weight[:, 3] = 0  # has no part in what nobody reads
        model[2].weight[:, 4] = 0
    takers = torch.arange(graph.num_channels)
    takers[1], takers[4] = 0, 3
    found = slopes(model, graph, takers)
    assert found[0].item() == pytest.approx(0.75)
    assert found[[2, 3, 5]].tolist() == [1.0, 1.0, 1.0]


def test_without_takers_every_channel_is_its_own():
    graph = measured(MLP).graph
    stays = torch.zeros(graph.num_channels, dtype=torch.bool)
    assert torch.equal(find_takers(graph, stays, {}), torch.arange(graph.num_channels))


@pytest.mark.parametrize(
    ("into", "message"),
    [
        ([0, 0, 0], r"into: 0: expected shape \(5,\), got \(3,\)"),
        ([0, 0, 9, 0, 0], "into: 0: expected numbers from -1 to 4, got 9"),
        ([0, 0, 4, 0, 1], "into: 0: expected neurons that stay, got 4, which is removed"),
    ],
)
def test_wrong_takers_are_refused(into, message):
    run = measured(MLP)
    with pytest.raises(s3d.ConfigError, match=message):
        s3d.remove(run.model, run.graph, {"0": [0, 1, 3]}, into={"0": torch.tensor(into)})


def test_a_neuron_of_another_block_takes_over_nothing():
    model = nn.Sequential(nn.Conv1d(2, 6, 1), nn.Tanh(), nn.Conv1d(6, 4, 1, groups=2), nn.Tanh(), nn.Conv1d(4, 2, 1))
    graph = s3d.trace(model, torch.randn(3, 2, 5))
    into = {"0": torch.tensor([3, -1, -1, -1, -1, 4])}
    with pytest.raises(s3d.ModelError, match=r"2\.weight: expected neurons that are merged in one of its blocks, got"):
        s3d.remove(model, graph, {"0": [1, 2, 3, 4]}, into=into)


def test_an_average_stays_if_all_its_channels_take_over_equally_many():
    graph = averaged_network(5, averages=[[0, 1, 2, 3]])
    every = torch.arange(graph.num_channels)

    def is_changed(gone: dict[int, int]) -> bool:
        """`gone` has the channels that are removed, and who takes them over."""
        stays, takers = torch.ones_like(every, dtype=torch.bool), every.clone()
        for channel, taker in gone.items():
            stays[channel], takers[channel] = False, taker
        return changed_average(graph, stays, takers) is not None

    assert not is_changed({})
    assert not is_changed({1: 0, 3: 2})
    assert not is_changed({4: 4})  # which is not averaged
    assert is_changed({1: 0})
    assert is_changed({3: 3})
