import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.rehearsal import search
from nni_s3d.growth.rehearsal.rehearsal import Rehearsal


class Blocks(nn.Module):
    """Residual blocks, of which some hold a width as a number."""

    def __init__(self, by_number: tuple[bool, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.by_number = nn.Linear(4, 6), nn.Linear(6, 2), by_number
        self.wide = nn.ModuleList(nn.Linear(6, 8) for _ in by_number)
        self.back = nn.ModuleList(nn.Linear(8, 6) for _ in by_number)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for wide, back, by_number in zip(self.wide, self.back, self.by_number, strict=True):
            hidden = wide(x).tanh()
            x = x + back(hidden.view(-1, 8) if by_number else hidden)
        return self.head(x)


@pytest.mark.parametrize("by_number", [(0, 0, 0), (1, 0, 0, 0, 0), (0, 1, 0, 0, 1, 0), (1, 1, 1)])
def test_the_groups_that_fail_are_found_and_no_others(by_number):
    graph = s3d.trace(Blocks(tuple(map(bool, by_number))), torch.randn(3, 4))
    refused = {group.name for group in graph if group.reason.startswith("the model fails when it grows")}
    assert refused == {f"wide.{n}" for n, wrong in enumerate(by_number) if wrong}
    assert set(graph.widths) == {"stem", *(f"wide.{n}" for n, wrong in enumerate(by_number) if not wrong)}


class Shuffle(nn.Module):
    """Two stages as in ShuffleNet, each with a layer inside, and layers around that nothing cuts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(8, 2, 1)
        self.left, self.right = nn.Conv2d(5, 4, 1), nn.Conv2d(5, 4, 1)
        self.inside = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 3, 1), nn.Conv2d(3, 4, 1)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = shuffled(torch.cat([self.left(x), self.right(x)], 1))
        for layer in self.inside:
            kept, changed = x.chunk(2, 1)
            x = shuffled(torch.cat([kept, layer(changed)], 1))
        return self.last(x)


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def test_channels_that_are_cut_are_tried_apart_from_the_rest(monkeypatch):
    rehearsals = []
    original = Rehearsal.trouble

    def counted(self, graph, copies):
        rehearsals.append(graph.widths)
        return original(self, graph, copies)

    monkeypatch.setattr(Rehearsal, "trouble", counted)
    graph = s3d.trace(Shuffle(), torch.randn(1, 3, 4, 4))
    assert {"first", "inside.0.0", "inside.1.0", "inside.2.0"} <= set(graph.widths)
    for name in graph.widths.keys() & {"left", "right", "inside.0.1", "inside.1.1"}:
        raise AssertionError(f"{name}: expected it to be refused")
    assert len(rehearsals) <= 4
    assert set(rehearsals[1]) == {"first", "inside.0.0", "inside.1.0", "inside.2.0"}


def test_rounding_of_the_models_own_precision_is_no_trouble(monkeypatch):
    """Where outputs differ in single precision, double precision decides."""
    monkeypatch.setattr("nni_s3d.growth.rehearsal.rehearsal._STRICT", 0.0)
    careful = []
    original = Rehearsal.in_float64

    def counted(model, inputs):
        careful.append(model)
        return original(model, inputs)

    monkeypatch.setattr(search.Rehearsal, "in_float64", counted)
    graph = s3d.trace(Blocks((False, False)), torch.randn(3, 4))
    assert set(graph.widths) == {"stem", "wide.0", "wide.1"}
    assert len(careful) == 1
