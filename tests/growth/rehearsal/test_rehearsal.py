from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.modules import untouched_random_state
from nni_s3d.growth.rehearsal.blame import Failure
from nni_s3d.growth.rehearsal.pattern import rehearsed_copies
from nni_s3d.growth.rehearsal.reasons import DIFFERENT
from nni_s3d.growth.rehearsal.rehearsal import Rehearsal
from tests import reference
from tests.cases import all_cases, measured
from tests.wide import expect_reason


def copies_of(graph):
    return rehearsed_copies(graph, graph.splittable_groups)


@all_cases
def test_growth_that_is_exact_makes_no_trouble(case):
    model = case.model().float()
    inputs = case.inputs().float()
    with torch.no_grad(), reference.untouched(model), untouched_random_state():
        rehearsal = Rehearsal.in_place(model, inputs)
        assert not rehearsal.failures(rehearsal.graph, copies_of(rehearsal.graph))
    assert rehearsal.graph.widths == measured(case).graph.widths


class Scaled(nn.Module):
    """A width that is used as a number, behind a gate that is zero at first."""

    def __init__(self, by: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.gate, self.by = nn.Linear(4, 8), nn.Linear(8, 2), nn.Parameter(torch.zeros(1)), by

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x)
        return self.gate * self.b(hidden * (1 + self.by * hidden.shape[1]))


@torch.no_grad()
@pytest.mark.parametrize("by", [1.0, 1e-3, 1e-4])
def test_a_width_that_is_used_as_a_number_is_seen(by):
    model, x = Scaled(by), torch.randn(3, 4)
    rehearsal = Rehearsal.in_place(model, x)
    (failure,) = rehearsal.failures(rehearsal.graph, copies_of(rehearsal.graph))
    assert failure.reason.startswith("the model computes something else when it grows: mul in the model (test_rehear")
    assert failure.groups == ("a",)
    assert model.gate.item() == 0


class Routed(nn.Module):
    """An expert that sees the samples whose score is not negative: at first all of them."""

    def __init__(self, picked: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.score, self.a, self.b, self.c = nn.Linear(4, 1), nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 2)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.picked = picked

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        some = self.b(self.a(self.picked(x, score[:, 0] >= 0)).tanh())
        return self.c(x + score * some.mean(dim=0))


@torch.no_grad()
@pytest.mark.parametrize(
    "picked",
    [
        lambda x, good: x[good],
        lambda x, good: x[torch.where(good)[0]],
        lambda x, good: x[good.nonzero()[:, 0]],
        lambda x, good: x[: int(good.sum().item())],
    ],
)
def test_costs_are_those_of_the_values_that_the_model_has(picked):
    graph = Rehearsal.in_place(Routed(picked), torch.randn(32, 4)).graph
    assert s3d.count(graph).macs == 4 + 4 * 8 + 8 * 4 + 4 * 2


@torch.no_grad()
def test_what_no_place_tells_is_told_by_the_whole():
    """A registered layer may be at fault beside all calls: there is an error, but no place in the code of the model."""
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.randn(3, 4)
    rehearsal = Rehearsal.in_place(model, x)
    rehearsal._trouble = lambda graph, new: "it fails"
    assert rehearsal.failures(rehearsal.graph, copies_of(rehearsal.graph)) == [Failure(-1, "it fails")]
    rehearsal._trouble = lambda graph, new: DIFFERENT
    assert rehearsal.failures(rehearsal.graph, copies_of(rehearsal.graph)) == []


@torch.no_grad()
def test_a_model_that_wants_its_own_values_is_read_with_them():
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
            self.start = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            assert not self.start.any()
            return self.b(self.a(x).tanh())

    rehearsal = Rehearsal.in_place(Zero(), torch.randn(3, 4))
    assert not rehearsal.parameters
    assert rehearsal.graph.widths == {"a": 8}
    assert not rehearsal.failures(rehearsal.graph, copies_of(rehearsal.graph))


@torch.no_grad()
def test_parameters_that_are_tied_stay_tied():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(2)), nn.Linear(4, 8), nn.Linear(8, 2))
    model[0].bias.zero_()
    model[1].bias = model[0].bias
    with reference.untouched(model), untouched_random_state():
        rehearsal = Rehearsal.in_place(model, torch.randn(3, 4))
        graph = rehearsal.graph
        assert list(map(id, (model[0].bias,))) == list(rehearsal.parameters)
        expect_reason(graph["0"], "the parameter 0.bias is used more than once")
        assert graph.widths == {"2": 8}
        assert not rehearsal.failures(graph, copies_of(graph))
    assert model[1].bias is model[0].bias
