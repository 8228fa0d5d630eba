import torch

from nni_s3d.growth.graph.refusals import Refusals


def test_a_reason_says_what_was_met_where_and_what_to_write_instead():
    refusals, labels = Refusals(), torch.arange(3)
    refusals.add([labels], "a sort mixes them", "sort positions")
    refusals.spot = lambda: " in head (net.py:3)"
    refusals.add([None, labels], "a sort mixes them", "sort positions")
    refusals.add([labels], "it is an output", "")
    assert [reason for _, reason in refusals] == [
        "a sort mixes them; sort positions",
        "a sort mixes them in head (net.py:3); sort positions",
        "it is an output in head (net.py:3)",
    ]
    assert all(found is labels for found, _ in refusals)


def test_nothing_is_refused_without_labels():
    refusals = Refusals()
    refusals.spot = lambda: 1 / 0  # the code is not looked at
    refusals.add([None], "a sort mixes them", "sort positions")
    assert refusals == []
