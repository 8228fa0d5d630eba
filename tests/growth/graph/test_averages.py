import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.graph.averages import (
    Average,
    ReadingCalls,
    SeenAverages,
    averaged,
    check_averages,
    divides_by_one_less,
    together,
)

AVERAGES = (Average("norm", torch.tensor([0, 1, 2])), Average("mean", torch.tensor([5, 6])))


def test_averages_that_share_a_channel_are_one():
    more = (*AVERAGES, Average("mean", torch.tensor([4, 2, 2])))
    assert [found.tolist() for found in together(AVERAGES, 8)] == [[0, 1, 2], [5, 6]]
    assert [found.tolist() for found in together(more, 8)] == [[0, 1, 2, 4], [5, 6]]
    assert together((), 8) == []
    assert averaged(AVERAGES, 8).nonzero().flatten().tolist() == [0, 1, 2, 5, 6]


def test_the_last_call_is_the_one_that_averages():
    seen = SeenAverages()
    for name in ("mean", "relu", "layer_norm"):
        seen.note_call(name)
    seen.note("norm", torch.tensor([[0, 1]]))
    assert seen.calls == [("mean", False), ("layer_norm", True)]
    assert [(average.where, average.channels.tolist()) for average in seen.found] == [("norm", [0, 1])]


def test_equal_copies_of_equal_weight_are_accepted():
    copies = torch.tensor([2, 2, 2, 3, 1, 3, 3])
    weights = (1 / copies.double()).repeat_interleave(copies)
    weights[6:9] = torch.tensor([0.5, 1.0, -0.5])  # of a channel that is not averaged
    check_averages(AVERAGES, copies, weights)


def test_other_copies_are_refused():
    copies = torch.tensor([2, 2, 1, 1, 1, 1, 1])
    said = "plan: expected equally many copies of all channels that norm averages, got 1 to 2; `with_equal_parts` finds"
    with pytest.raises(s3d.ModelError, match=said):
        check_averages(AVERAGES, copies, (1 / copies.double()).repeat_interleave(copies))


def test_other_weights_are_refused():
    copies = torch.tensor([1, 1, 1, 1, 1, 2, 2])
    weights = torch.tensor([1, 1, 1, 1, 1, 0.5, 0.5, 1.5, -0.5], dtype=torch.float64)
    said = "plan: expected copies of equal weight where mean averages channels, got other weights"
    with pytest.raises(s3d.ModelError, match=said):
        check_averages(AVERAGES, copies, weights)


def test_calls_are_found_again():
    calls = ReadingCalls([("mean", False), ("layer_norm", True), ("matmul", True)])
    met = [calls.met(name) for name in ("mean", "relu", "layer_norm", "matmul", "mean")]
    assert met == [False, False, True, True, False]
    with pytest.raises(
        s3d.ModelError, match=r"model: expected the 3 means, norms and products that it called .* got 4 or others"
    ):
        calls.check()
    none = ReadingCalls([("mean", False)])
    assert not none.met("mean")
    none.met("mean")
    none.check()


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "by_one_less"),
    [
        ("mean", (1, True), {}, False),
        ("var", (1,), {}, True),
        ("var", (1, False), {}, False),
        ("std", (True,), {}, True),
        ("std", (False,), {}, False),
        ("std", (), {"dim": 1, "correction": 0}, False),
        ("var", (), {"dim": 1, "unbiased": False}, False),
        ("var_mean", (1,), {"correction": 1, "keepdim": True}, True),
        ("var", (1,), {"correction": None}, True),
    ],
)
def test_what_a_variance_divides_by(name, args, kwargs, by_one_less):
    assert divides_by_one_less(name, args, kwargs) == by_one_less


class Moody(nn.Module):
    """Takes another mean where it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        x = x - x.mean() if self.training else x
        return self.b(self.norm(self.a(x)))


@pytest.mark.parametrize("kind", [s3d.SplittingOperator, s3d.PlainSplittingOperator])
def test_curvature_wants_the_calls_of_the_trace(kind):
    model, x = Moody(), torch.randn(5, 3)
    graph = s3d.trace(model, x)
    batches = [(x, torch.randn(5, 2))]
    kind(model.eval(), graph, batches, nn.functional.mse_loss)
    with pytest.raises(
        s3d.ModelError, match="model: expected the 1 means, norms and products that it called when it was traced"
    ):
        kind(model.train(), graph, batches, nn.functional.mse_loss)
