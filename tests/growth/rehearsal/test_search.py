import re

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.rehearsal.rehearsal import Rehearsal
from nni_s3d.growth.rehearsal.side_by_side import SideBySide
from tests import reference
from tests.wide import check_split


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


def counted(monkeypatch, kind, name) -> list[object]:
    """Count the calls of a method."""
    calls: list[object] = []
    original = getattr(kind, name)

    def method(self, *args):
        calls.append(args)
        return original(self, *args)

    monkeypatch.setattr(kind, name, method)
    return calls


class Res2(nn.Module):
    """Blocks as in Res2Net, whose widths are numbers in the code."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.a = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(blocks))
        self.b = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(blocks))
        self.c = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for a, b, c in zip(self.a, self.b, self.c, strict=True):
            first, second = torch.split(a(x).tanh(), 4, 1)
            x = x + c(torch.cat([first, b(second).tanh()], 1))
        return self.head(x)


@pytest.mark.parametrize("blocks", [1, 3, 12])
def test_many_places_that_fail_are_found_in_one_run(monkeypatch, blocks):
    quick = counted(monkeypatch, Rehearsal, "_trouble")
    careful = counted(monkeypatch, SideBySide, "failures")
    graph = s3d.trace(Res2(blocks), torch.randn(1, 3, 4, 4))
    assert (len(quick), len(careful)) == (2, 1)
    assert set(graph.widths) == {"stem", *(f"b.{n}" for n in range(blocks))}
    said = r"the model .* when it grows: split in the model \(test_search.py:\d+\) is given the width 4 as a number; "
    for n in range(blocks):
        assert re.fullmatch(said + r"write chunk\(2, 1\)", graph[f"a.{n}"].reason)


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


def test_channels_that_a_shuffle_and_a_cut_tear_apart_are_refused_and_no_others(monkeypatch):
    quick = counted(monkeypatch, Rehearsal, "_trouble")
    model, x = Shuffle().double(), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    graph = s3d.trace(model, x)
    assert {"first", "inside.0.0", "inside.1.0", "inside.2.0"} <= set(graph.widths)
    assert not graph.widths.keys() & {"left", "right", "inside.0.1", "inside.1.1"}
    assert len(quick) <= 4
    check_split(model, x, graph)


class ShuffleNet(nn.Module):
    """The first stage of torchvision's ShuffleNet; one neuron of a part may by chance stay with its readers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.last = nn.Conv2d(3, 24, 1), nn.Conv2d(3, 24, 1), nn.Conv2d(48, 2, 1)
        self.inside = nn.ModuleList(nn.Conv2d(24, 24, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = shuffled(torch.cat([self.left(x), self.right(x)], 1))
        for layer in self.inside:
            kept, changed = x.chunk(2, 1)
            x = shuffled(torch.cat([kept, layer(changed)], 1))
        return self.last(x)


@pytest.mark.parametrize("seed", range(3))
def test_plans_can_be_carried_out_where_channels_are_shuffled(seed):
    model, x = ShuffleNet().double(), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    graph = s3d.trace(model, x)
    if graph.widths:
        copies = with_equal_parts(graph, reference.plan_of_random_copies(graph, (1, 2), seed))
        grown = s3d.split(model, graph, s3d.plan_from_copies(graph, copies), epsilon=0).model
        torch.testing.assert_close(grown(x), model(x), rtol=0, atol=1e-12)


class Tail(nn.Module):
    """As in ReXNet: a stream is added to the first channels of a wider layer; those behind them may grow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).tanh()
        y = self.b(x)
        return self.c(torch.cat([y[:, :3] + x, y[:, 3:]], 1))


def test_only_the_groups_that_a_place_tears_apart_are_refused():
    model, x = Tail().double(), torch.randn(5, 4, dtype=torch.float64)
    graph = s3d.trace(model, x)
    assert graph.widths == {"b": 2}
    assert "getitem in the model (test_search.py" in graph["a"].reason
    assert "[:, :3]" in graph["a"].reason
    check_split(model, x, graph, copies=2)


class Borrowed(nn.Module):
    """A number is made of one width and used where another group is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).tanh()
        return self.c(self.b(h) * h.shape[1] ** -0.5)


def test_the_group_whose_width_was_read_is_to_blame_and_not_the_one_that_it_meets():
    graph = s3d.trace(Borrowed(), torch.randn(5, 4))
    assert graph.widths == {"b": 8}
    assert "uses a width as a number" in graph["a"].reason


class Tensors(Borrowed):
    """The same, but the number is a tensor: the place tells nothing of it, and both groups are tried."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).tanh()
        return self.c(self.b(h) * torch.tensor(float(h.shape[1])).rsqrt())


def test_a_group_that_was_refused_for_another_one_is_tried_again():
    graph = s3d.trace(Tensors(), torch.randn(5, 4))
    assert graph.widths == {"b": 8}


def test_rounding_of_the_models_own_precision_is_no_trouble(monkeypatch):
    """Where outputs differ, the calls are compared one by one."""
    monkeypatch.setattr("nni_s3d.growth.rehearsal.rehearsal.STRICT", 0.0)
    careful = counted(monkeypatch, SideBySide, "failures")
    graph = s3d.trace(Blocks((False, False)), torch.randn(3, 4))
    assert set(graph.widths) == {"stem", "wide.0", "wide.1"}
    assert len(careful) == 1


def test_what_is_averaged_with_a_group_that_fails_is_refused_with_it():
    class Together(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm, self.c = nn.Linear(4, 3), nn.Linear(4, 3), nn.LayerNorm(6), nn.Linear(6, 2)
            self.d, self.e = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.c(self.norm(torch.cat([self.a(x).view(-1, 3), self.b(x)], 1))) + self.e(self.d(x).tanh())

    graph = s3d.trace(Together(), torch.randn(5, 4))
    assert graph.widths == {"d": 5}
    assert "view in the model" in graph["a"].reason
    said = "its growth alone would change an average over its channels and others (norm): a cannot grow; see why not"
    assert graph["b"].reason == said
