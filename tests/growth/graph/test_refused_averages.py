import torch

from nni_s3d.growth.graph.averages import Average
from nni_s3d.growth.graph.channels import ChannelGroup
from nni_s3d.growth.graph.refused_averages import averages_refused


def refused(reasons: dict[str, str], averages: dict[str, list[int]]) -> dict[str, str]:
    """Return the reasons of groups of two channels each."""
    groups = [ChannelGroup(name, 2, 2 * n, (), (), (), reason) for n, (name, reason) in enumerate(reasons.items())]
    found = averages_refused(groups, [Average(where, torch.tensor(channels)) for where, channels in averages.items()])
    return {group.name: group.reason for group in found}


def test_nothing_is_refused_without_a_reason():
    reasons = {"a": "", "b": "", "c": "it is an output"}
    assert refused(reasons, {"norm": [0, 1, 2, 3]}) == reasons
    assert refused(reasons, {}) == reasons


def test_what_meets_a_refused_channel_is_refused_with_its_reason():
    found = refused({"a": "", "b": "", "c": "it is an output"}, {"norm": [1, 4], "mean": [2, 3]})
    assert found["a"] == "norm averages them together with channels that cannot be split (c: it is an output)"
    assert found["b"] == ""


def test_refusals_spread_with_the_first_cause():
    found = refused({"a": "", "b": "", "c": "it is an output"}, {"one": [0, 2], "two": [3, 5]})
    assert found["b"] == "two averages them together with channels that cannot be split (c: it is an output)"
    assert found["a"] == "one averages them together with channels that cannot be split (c: it is an output)"


def test_channels_of_no_group_refuse_too():
    found = refused({"a": ""}, {"mean": [0, 1, -1]})
    assert found["a"].endswith("cannot be split (those of a weight that the trace cannot follow)")
