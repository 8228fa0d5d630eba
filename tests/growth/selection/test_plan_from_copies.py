"""Plans made by hand: every group, the weights of the schemes, wrong copies refused."""

import pytest
import torch

import nni_s3d as s3d
from nni_s3d import ConfigError
from tests.cases import BY_NAME, measured
from tests.growth.selection.made_up import network


def test_a_plan_covers_all_splittable_groups_in_their_order():
    run = measured(BY_NAME["separable-silu"])
    plan = s3d.plan_from_copies(run.graph, {"12": torch.tensor([2, 1, 4])})
    assert list(plan.copies) == ["0", "6", "12"]
    assert plan.widths == {"0": 3, "6": 4, "12": 7}
    assert plan.copies["0"].tolist() == [1, 1, 1]
    assert plan.neurons == 2
    assert plan.gain == 0
    assert not plan.displacements


def test_without_a_spectrum_the_weights_are_those_of_the_schemes():
    graph = network(4)
    plan = s3d.plan_from_copies(graph, {"0": torch.tensor([2, 1, 3, 4])}, c=1.4)
    expected = [0.5, 0.5, 1.0, 0.6, 0.6, -0.2, 0.6, 0.6, -0.1, -0.1]
    torch.testing.assert_close(plan.weights["0"], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("copies", "error", "match"),
    [
        ({"9": [2]}, s3d.ModelError, "channel group '9': expected one of 0, 2, 4"),
        ({"4": [2, 1, 1]}, s3d.ModelError, "4: expected a splittable group, but it is an output of the network"),
        ({"0": [2, 2]}, s3d.ModelError, r"0: expected copies of shape \(5,\), got \(2,\)"),
        ({"0": [2, 1, 5, 1, 1]}, ConfigError, "0: expected 1, 2, 3 or 4 copies of every neuron, got 5"),
        (None, ConfigError, "copies: expected a mapping {group: copies of every neuron}, got None"),
        ([2, 1], ConfigError, r"copies: expected a mapping .*, got \[2, 1\]"),
        ({"0": None}, ConfigError, "0: expected copies of every neuron, got None"),
        ({"0": "abc"}, ConfigError, "0: expected copies of every neuron, got 'abc'"),
        ({"0": 1e30}, s3d.ModelError, r"0: expected copies of shape \(5,\), got \(\)"),
        ({"0": [True] * 5}, ConfigError, "0: expected 1, 2, 3 or 4 copies of every neuron, got True"),
        ({"0": [2, 1, 0, 1, 1]}, ConfigError, "0: expected 1, 2, 3 or 4 copies of every neuron, got 0"),
    ],
)
def test_wrong_copies_are_refused(copies, error, match):
    with pytest.raises(error, match=match):
        s3d.plan_from_copies(measured(BY_NAME["mlp-tanh"]).graph, copies)


def test_a_plan_with_an_unknown_triplet_is_refused():
    with pytest.raises(ConfigError, match="triplet: expected one of optimal, paper, got 'x'"):
        s3d.plan_from_copies(measured(BY_NAME["mlp-tanh"]).graph, {}, triplet="x")


@pytest.mark.parametrize("c", [0.5, float("nan")])
def test_a_plan_with_c_below_one_is_refused(c):
    with pytest.raises(ConfigError, match="c: expected a number >= 1"):
        s3d.plan_from_copies(measured(BY_NAME["mlp-tanh"]).graph, {}, c=c)
