"""Networks that take widths from attributes of their modules."""

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.rehearsal import careful
from tests.reference import plan_of_random_copies
from tests.wide import Net, sample


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def convs(*sizes: tuple[int, int]) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {name: conv(*size) for name, size in zip("abcdef", sizes, strict=False)}


def grown(model: nn.Module, graph: s3d.ChannelGraph, seed: int) -> s3d.SplitResult:
    """Split some neurons at random without moving them."""
    copies = with_equal_parts(graph, plan_of_random_copies(graph, (1, 1, 2, 3), seed))
    return s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=2.5), epsilon=0)


def axes_of(graph: s3d.ChannelGraph) -> dict[str, Tensor]:
    return {str(attribute): attribute.axes for attribute in graph.attributes}


def check_grows_twice(model: nn.Module, inputs: Tensor, widths: dict[str, int], seed: int) -> s3d.SplitResult:
    """Expect groups of these widths, and two growths that leave the function as it is, with graphs as in a trace."""
    model, expected = model.double().eval(), model.double().eval()(inputs)
    before = [dict(vars(module)) for module in model.modules()]
    graph = s3d.trace(model, inputs)
    assert graph.widths == widths
    for n in range(2):
        result = grown(model, graph, 2 * seed + n)
        torch.testing.assert_close(result.model(inputs), expected, rtol=0, atol=1e-10)
        traced = s3d.trace(result.model, inputs)
        assert str(traced) == str(result.graph)
        assert axes_of(traced).keys() == axes_of(result.graph).keys()
        for name, axes in axes_of(traced).items():
            assert axes.tolist() == axes_of(result.graph)[name].tolist()
        assert len(traced.equal_parts) == len(result.graph.equal_parts)
        assert n or before == [dict(vars(module)) for module in model.modules()]
        model, graph = result.model, result.graph
    return result


def split_by_width(m: Net, x: Tensor) -> Tensor:
    """Res2Net: pieces of one width."""
    pieces = torch.split(m.a(x).tanh(), m.width, 1)
    last, outs = 0, []
    for piece in pieces:
        last = m.b((piece + last).tanh()) if not outs else piece
        outs.append(last)
    return m.c(torch.cat(outs, 1).tanh())


def list_of_widths(m: Net, x: Tensor) -> Tensor:
    """MixNet: pieces with a list of widths, of which each may grow on its own."""
    first, second, third = torch.split(m.a(x).tanh(), m.widths, dim=1)
    return m.c(torch.cat([m.b(first), second, m.d(third)], 1).tanh())


def slices(m: Net, x: Tensor) -> Tensor:
    """DPN and ReXNet: a slice up to a width and the one from there."""
    x = m.a(x).tanh()
    return m.c(torch.cat([x[:, : m.width] + m.b(x), x[:, m.width :]], 1).tanh())


def slice_from_the_end(m: Net, x: Tensor) -> Tensor:
    x = m.a(x).tanh()
    return m.c(torch.cat([x[..., -m.width :, :, :].tanh(), m.b(x[:, : -m.width])], 1).tanh())


def narrowed(m: Net, x: Tensor) -> Tensor:
    x = m.a(x).tanh()
    return m.c(torch.cat([x.narrow(1, 0, m.first).tanh(), m.b(x.narrow(-3, m.first, m.second))], 1).tanh())


def whole(m: Net, x: Tensor) -> Tensor:
    """GhostNet: a slice that happens to leave nothing out."""
    x = m.a(x).tanh()
    return m.c(torch.cat([x, m.b(x)], 1)[:, : m.width].tanh())


def halves(m: Net, x: Tensor) -> Tensor:
    """CSPNet: two halves of a width."""
    first, second = m.a(x).tanh().split(m.width // 2, dim=1)
    return m.c(torch.cat([first, m.b(second).tanh()], 1))


def shares(m: Net, x: Tensor) -> Tensor:
    """Selective kernels: a width over a number of paths."""
    first, second = torch.split(m.a(x).tanh(), m.width // m.paths, 1)
    return m.c((m.b(first) + m.d(second)).tanh())


def threefold(m: Net, x: Tensor) -> Tensor:
    """One of the pieces is three times as wide as the other."""
    first, second = torch.split(m.a(x).tanh(), [3 * m.width, m.width], 1)
    return m.c(m.b(first).tanh() + second)


def flattened(m: Net, x: Tensor) -> Tensor:
    x = m.a(x).tanh()
    return m.head(x.reshape(-1, m.width * x.shape[2] * x.shape[3]))


def channels_of_positions(m: Net, x: Tensor) -> Tensor:
    x = m.a(x).tanh().reshape(len(x), m.width, -1)
    return m.head(x.mean(-1).view(-1, m.width))


def scaled(m: Net, x: Tensor) -> Tensor:
    """A parameter that follows channels is laid out along them by an attribute."""
    return m.b((m.a(x) * m.scale.weight.view(m.shape)).tanh())


def two_of_one_value(m: Net, x: Tensor) -> Tensor:
    """Two attributes of one value count different channels."""
    x = m.a(x).tanh()
    x = torch.cat([m.b(x[:, : m.first]).tanh(), x[:, m.first :]], 1)
    x = m.c(x).tanh()
    return m.d(torch.cat([x[:, : m.second].tanh(), m.e(x[:, m.second :])], 1))


def one_for_two(m: Net, x: Tensor) -> Tensor:
    """One attribute counts different channels, which must stay equally many."""
    x = m.a(x).tanh()
    x = m.b(torch.cat([x[:, : m.width].tanh(), x[:, m.width :]], 1)).tanh()
    return m.c(torch.cat([x[:, : m.width].tanh(), x[:, m.width :]], 1))


STRUCTURES = {
    "split by a width": (split_by_width, {**convs((3, 6), (2, 2), (6, 2)), "width": 2}, {"a": 6, "b": 2}),
    "list of widths": (
        list_of_widths,
        {**convs((3, 9), (2, 2), (9, 2), (4, 4)), "widths": [2, 3, 4]},
        {"a": 2, "a#2": 3, "a#3": 4, "b": 2, "d": 4},
    ),
    "tuple of widths": (
        list_of_widths,
        {**convs((3, 9), (3, 3), (9, 2), (3, 3)), "widths": (3, 3, 3)},
        {"a": 3, "a#2": 3, "a#3": 3, "b": 3, "d": 3},
    ),
    "slices": (slices, {**convs((3, 7), (7, 4), (7, 2)), "width": 4}, {"a": 4, "a#2": 3}),
    "slices of equal size": (slices, {**convs((3, 8), (8, 4), (8, 2)), "width": 4}, {"a": 4, "a#2": 4}),
    "slice from the end": (
        slice_from_the_end,
        {**convs((3, 6), (3, 2), (5, 2)), "width": 3},
        {"a": 3, "a#2": 3, "b": 2},
    ),
    "narrow": (narrowed, {**convs((3, 6), (4, 5), (7, 2)), "first": 2, "second": 4}, {"a": 2, "a#2": 4, "b": 5}),
    "whole": (whole, {**convs((3, 4), (4, 4), (8, 2)), "width": 8}, {"a": 4, "b": 4}),
    "halves": (halves, {**convs((3, 8), (4, 3), (7, 2)), "width": 8}, {"a": 8, "b": 3}),
    "shares": (shares, {**convs((3, 8), (4, 3), (3, 2), (4, 3)), "width": 8, "paths": 2}, {"a": 8, "b": 3}),
    "threefold": (threefold, {**convs((3, 8), (6, 2), (2, 2)), "width": 2}, {"a": 6, "a#2": 2}),
    "flattened": (flattened, {**convs((3, 4)), "head": nn.Linear(64, 2), "width": 4}, {"a": 4}),
    "positions": (channels_of_positions, {**convs((3, 4)), "head": nn.Linear(4, 2), "width": 4}, {"a": 4}),
    "scale": (
        scaled,
        {**convs((3, 4), (4, 2)), "scale": nn.Linear(1, 4, bias=False), "shape": (4, 1, 1)},
        {"a": 4},
    ),
    "two of one value": (
        two_of_one_value,
        {**convs((3, 8), (4, 3), (7, 9), (9, 2), (5, 5)), "first": 4, "second": 4},
        {"a": 4, "a#2": 4, "b": 3, "c": 4, "c#2": 5, "e": 5},
    ),
    "one for two": (one_for_two, {**convs((3, 7), (7, 9), (9, 2)), "width": 4}, {"a": 4, "a#2": 3, "b": 4, "b#2": 5}),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("structure", STRUCTURES)
def test_attributes_grow_with_the_channels_that_they_count(structure, seed):
    forward, modules, widths = STRUCTURES[structure]
    check_grows_twice(Net(forward, **copy.deepcopy(modules)), sample(2, 3, 4, 4), widths, seed)


def divided_by_it(m: Net, x: Tensor) -> Tensor:
    x = m.a(x).tanh()
    return m.c(torch.cat([m.b(x[:, : m.width]).tanh(), x[:, m.width :]], 1) / m.width)


def with_a_number(m: Net, x: Tensor) -> Tensor:
    first, second = m.a(x).tanh().split([m.width, 5], 1)
    return m.c(torch.cat([m.b(first).tanh(), second], 1))


REFUSED = {
    "a number too": (
        divided_by_it,
        r"the model computes .*: getitem in the model \(.*\) is given the bounds \[:, :4\] as numbers; .*; "
        r"nor can the attribute width grow: div in the model \(.*\) uses a width as a number; write a constant .*",
    ),
    "beside a number": (
        with_a_number,
        r"the model fails .*: split in the model \(.*\) is given the widths \(4, 5\) as numbers; .*; "
        r"nor can the attribute width grow: split_with_sizes expects split_sizes to sum exactly to .*",
    ),
}


@pytest.mark.parametrize("structure", REFUSED)
def test_attributes_that_mean_something_else_too_are_left_alone(structure):
    forward, reason = REFUSED[structure]
    model = Net(forward, **convs((3, 9), (4, 9), (14, 2)), width=4).double()
    graph = s3d.trace(model, sample(2, 3, 4, 4))
    assert "a" not in graph.widths
    assert re.fullmatch(reason, graph["a"].reason), graph["a"].reason
    assert not graph.attributes


class Halves(nn.Module):
    """Called several times, with other channels each time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, : self.width].tanh(), x[:, self.width :]], 1)


def test_a_module_that_is_called_twice_keeps_both_axes_equal():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 7), half := Halves(4), nn.Linear(7, 9), half, nn.Linear(9, 2))
    result = check_grows_twice(model, sample(5, 3), {"0": 4, "0#2": 3, "2": 4, "2#2": 5}, 0)
    axes = axes_of(result.graph)["1.width"]
    assert axes.shape == (2, result.model[1].width)
    assert result.model[1].width > 4 == half.width


class Attention(nn.Module):
    """Attention whose values have heads of a width of their own, or of that of the queries and keys."""

    def __init__(self, of_values: str, act: Callable[[Tensor], Tensor] = torch.clone) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.width, self.width_of_values, self.of_values, self.act = 2, 4, 4, of_values, act
        self.query, self.key, self.value, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        width = getattr(self, self.of_values)
        query, key = (self.act(layer(x)).view(*x.shape[:2], self.heads, self.width) for layer in (self.query, self.key))
        value = self.value(x).view(*x.shape[:2], self.heads, width)
        y = nn.functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
        return self.out(self.merged(y.transpose(1, 2)))

    def merged(self, y: Tensor) -> Tensor:
        return y.reshape(*y.shape[:2], self.heads * getattr(self, self.of_values))


class FlatAttention(Attention):
    """No function is given the width of all heads together."""

    def merged(self, y: Tensor) -> Tensor:
        return y.flatten(2)


@pytest.mark.parametrize("kind", [Attention, FlatAttention])
def test_the_width_of_a_head_grows_where_it_has_an_attribute_of_its_own(kind):
    result = check_grows_twice(kind("width_of_values"), sample(2, 5, 6), {"query": 8, "value": 8}, 0)
    assert result.model.heads == 2
    assert result.model.width == result.widths["query"] // 2 > 4
    assert result.model.width_of_values == result.widths["value"] // 2 > 4
    result = check_grows_twice(kind("width"), sample(2, 5, 6), {"query": 8, "value": 8}, 0)
    assert result.model.width == result.widths["query"] // 2 == result.widths["value"] // 2 > 4
    reason = s3d.trace(kind("width", torch.tanh).double(), sample(2, 5, 6))["value"].reason
    assert reason.endswith(r"where its channels are cut (view, width): query cannot grow; see why not")


def test_lists_that_are_shared_are_exchanged_in_one_module_alone():
    forward, modules, _ = STRUCTURES["list of widths"]
    model = Net(forward, **copy.deepcopy(modules)).double()
    model.other = model.widths
    result = grown(model, s3d.trace(model, sample(2, 3, 4, 4)), 0)
    assert model.widths == [2, 3, 4] == result.model.other
    assert sum(result.model.widths) == result.model.a.out_channels > 9
    assert type(result.model.widths[0]) is int


def test_code_that_wants_plain_integers_is_recorded_with_these():
    def strict(m: Net, x: Tensor) -> Tensor:
        if type(m.width) is not int:
            raise TypeError("expected an int")
        return split_by_width(m, x)

    _, modules, _ = STRUCTURES["split by a width"]
    graph = s3d.trace(Net(strict, **copy.deepcopy(modules)).double(), sample(2, 3, 4, 4))
    assert re.search(
        r"split in the model \(.*\) is given the width 2 as a number; write chunk\(3, 1\)", graph["a"].reason
    )
    assert not graph.attributes


def plainly(m: Net, x: Tensor) -> Tensor:
    first, second = m.a(x).tanh().chunk(2, 1)
    return m.c(torch.cat([m.b(first), second], 1).tanh())


def test_nothing_is_marked_where_nothing_fails(monkeypatch):
    monkeypatch.setattr(careful, "mark_attributes", lambda model: pytest.fail("marked"))
    graph = s3d.trace(Net(plainly, **convs((3, 8), (4, 4), (8, 2)), width=4).double(), sample(2, 3, 4, 4))
    assert graph.widths == {"a": 8, "b": 4}
