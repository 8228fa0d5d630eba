import pytest
import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.following import with_attributes
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from tests.wide import Net, linears, sample


def halves(m: Net, x: Tensor) -> Tensor:
    """Two halves of which one passes a batch norm, and each has a reader of its own."""
    x = m.a(x)
    first, second = m.norm(x[:, :3]), x[:, 3:]
    return m.c(first.tanh()) + m.d(second.tanh())


MODEL = Net(halves, **linears((4, 6), (1, 1), (3, 2), (3, 2)), norm=nn.BatchNorm1d(3)).double()
GRAPH = read_graph(MODEL, sample(5, 4))


def width(*axes: list[int], cuts: tuple[int, ...] = ()) -> WidthAttribute:
    return WidthAttribute("", "width", None, torch.tensor(axes), frozenset(cuts))


def test_without_attributes_a_graph_is_as_it_was():
    assert with_attributes(GRAPH, []) is GRAPH
    assert [(cut.where, cut.cut) for cut in GRAPH.equal_parts] == [("getitem", 0), ("getitem", 1)]


def test_what_an_attribute_counts_is_a_width_of_its_own():
    graph = with_attributes(GRAPH, [width([0, 1, 2], cuts=(0, 1))])
    first, second = graph["a"], graph["a#2"]
    assert (first.channels, second.channels) == (slice(0, 3), slice(3, 6))
    assert [layer.name for layer in (*first.followers, *first.consumers)] == ["norm", "c"]
    assert [layer.name for layer in (*second.followers, *second.consumers)] == ["d"]
    assert [group.name for group in graph] == ["a", "a#2", "c"]
    assert not graph.equal_parts
    assert graph.layers is GRAPH.layers


def test_a_cut_of_which_no_attribute_is_a_bound_stays():
    graph = with_attributes(GRAPH, [width([0, 1, 2], cuts=(1,))])
    assert [cut.cut for cut in graph.equal_parts] == [0]


def test_axes_of_one_attribute_stay_equally_large():
    graph = with_attributes(GRAPH, [width([0, 1, 2], [3, 4, 5], cuts=(0, 1))])
    assert graph.widths == {"a": 6}
    ((parts,),) = ([(cut.where, cut.parts.tolist())] for cut in graph.equal_parts)
    assert parts == ("width", [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("axis", "groups"), [([0, 2, 4], 1), ([0, 1, 5], 3), ([1, 2], 3), ([0, 1, 2, 3, 4], 2), ([-1], 1)]
)
def test_parts_that_lie_interleaved_are_one_group(axis, groups):
    assert len(with_attributes(GRAPH, [width(axis)])) == len(GRAPH) - 1 + groups


def test_the_parts_of_two_attributes():
    graph = with_attributes(GRAPH, [width([0]), width([1, 2]), width([0, 1, 2])])
    assert [group.width for group in graph] == [1, 2, 3, 2]
