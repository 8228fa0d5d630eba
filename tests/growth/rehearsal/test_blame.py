import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.rehearsal.pattern import rehearsed_copies
from nni_s3d.growth.rehearsal.rehearsal import Rehearsal
from tests.wide import Net, linears


@torch.no_grad()
def failures(model: nn.Module, x: Tensor):
    rehearsal = Rehearsal.in_place(model, x)
    return rehearsal.failures(rehearsal.graph, rehearsed_copies(rehearsal.graph, rehearsal.graph.splittable_groups))


def test_groups_that_fail_at_a_place_alone_are_blamed_and_no_others():
    """Only what lies before the end of a slice moves it."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.cat([m.a(x), m.b(x)], 1)
        return m.c(torch.cat([h[:, :3], h[:, 3:].tanh()], 1))

    model = Net(forward, **linears((4, 3), (4, 5), (8, 2)))
    found = failures(model, torch.randn(6, 4))
    assert {failure.groups for failure in found} == {("a",)}
    assert all(failure.each and not failure.by_rounding for failure in found)


@pytest.mark.parametrize(("size", "slight"), [(1e-4, True), (1.0, False)])
def test_what_differs_slightly_may_differ_by_rounding(size, slight):
    model = Net(lambda m, x: m.b((h := m.a(x)) * (1 + size * h.shape[1])), **linears((4, 3), (3, 2)))
    (failure,) = failures(model, torch.randn(6, 4))
    assert failure.by_rounding == slight


def test_all_groups_at_a_place_are_named_where_it_does_not_tell_which():
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.cat([m.a(x), m.b(x)], 1)
        return m.c(h * h.shape[1])

    model = Net(forward, **linears((4, 3), (4, 5), (8, 2)))
    (failure,) = failures(model, torch.randn(6, 4))
    assert failure.groups == ("a", "b")
    assert not failure.by_rounding
    assert not failure.each
    assert not s3d.trace(model, torch.randn(6, 4)).widths


def test_what_was_made_of_channels_is_followed_to_an_error():
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.seen.copy_(x.detach().square().mean(0).sqrt())
            return x

    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), Keeps(), nn.Linear(3, 2))
    graph = s3d.trace(model.eval(), torch.randn(6, 4))
    assert set(graph.widths) == {"0"}
    assert "copy in 3 (test_blame.py:" in graph["2"].reason
    assert "meets 3.seen, of shape (3,)," in graph["2"].reason
