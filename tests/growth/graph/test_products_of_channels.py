"""What carries the weights of copies in sums over the products of two tensors' channels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.read import read_graph
from tests.wide import Net, Number, linears, sample


def carriers(forward, shape=(5, 3, 4), **modules) -> dict[str, list[int]]:
    """Return {parameter: which of its entries carry weights}."""
    graph = read_graph(Net(forward, **modules).double().eval(), sample(*shape))
    return {axis.tensor: axis.carries.nonzero().flatten().tolist() for axis in graph.axes() if axis.carries is not None}


THREE = [0, 1, 2]
LAYERS = linears((4, 3), (3, 2), (4, 3))  # queries, what reads the scores, keys


def test_keys_carry_the_weights_in_their_rows():
    found = carriers(lambda m, x: m.b(m.a(x) @ m.c(x).mT), **LAYERS)
    assert found == {"c.weight": THREE, "c.bias": THREE}


def test_queries_do_where_keys_cannot():
    found = carriers(lambda m, x: m.b(m.a(x) @ m.c(x).relu().mT), **LAYERS)
    assert found == {"a.weight": THREE, "a.bias": THREE}
    found = carriers(lambda m, x: m.b(m.a(x) @ (k := m.c(x)).mT) + m.d(k), **LAYERS, d=nn.Linear(3, 2))
    assert found == {"a.weight": THREE, "a.bias": THREE}


def test_a_batch_norm_does_where_one_follows():
    layers = {"a": nn.Conv1d(4, 3, 1), "c": nn.Conv1d(4, 3, 1), "b": nn.Linear(4, 2), "norm": nn.BatchNorm1d(3)}
    found = carriers(lambda m, x: m.b(m.a(x).mT @ m.norm(m.c(x))), (5, 4, 4), **layers)
    assert found == {"norm.weight": THREE, "norm.bias": THREE}


def test_a_norm_without_a_scale_cannot():
    layers = {"a": nn.Conv1d(4, 3, 1), "c": nn.Conv1d(4, 3, 1), "b": nn.Linear(4, 2)}
    layers["norm"] = nn.BatchNorm1d(3, affine=False)
    found = carriers(lambda m, x: m.b(m.a(x).mT @ m.norm(m.c(x))), (5, 4, 4), **layers)
    assert found == {"a.weight": THREE, "a.bias": THREE}


def test_part_of_the_rows_of_a_layer():
    def forward(m, x):
        query, key, value = m.a(x).chunk(3, -1)
        return m.b(F.scaled_dot_product_attention(query, key, value))

    model = Net(forward, **linears((4, 9), (3, 2))).double()
    assert carriers(forward, **linears((4, 9), (3, 2))) == {"a.weight": [3, 4, 5], "a.bias": [3, 4, 5]}
    graph = read_graph(model, sample(5, 3, 4))
    first = graph["a"].first
    assert [channels.flatten().tolist() for channels in graph.divided] == [[first, first + 1, first + 2]]
    assert graph["a"].width == graph["a#2"].width == 3


def test_a_scale_of_its_own_does_not_depend_on_the_width():
    def forward(m, x):
        return m.b(F.scaled_dot_product_attention(m.a(x), m.c(x), x[..., :3], scale=0.1))

    assert read_graph(Net(forward, **LAYERS).double(), sample(5, 3, 4)).divided == ()


def test_rows_of_a_transposed_weight():
    found = carriers(lambda m, x: m.b(m.a(x) @ (x @ m.weight).mT), **LAYERS, weight=Number(4, 3))
    assert found == {"weight": THREE}


def test_a_layer_that_is_called_again():
    """As blocks that share their weights do: all calls are on their way to products."""

    def forward(m, x):
        first = (m.a(x) @ m.c(x).mT).softmax(-1)
        return m.b((m.a(first @ x) @ m.c(first @ x).mT).softmax(-1))

    assert carriers(forward, **LAYERS) == {"c.weight": THREE, "c.bias": THREE}


def test_what_was_empty_before_may_lie_beside():
    def forward(m, x):
        key = torch.cat([x.new_zeros(5, 0, 3), m.c(x)], 1)
        return m.b(m.a(x).tanh() @ key.mT)

    assert carriers(forward, **LAYERS) == {"c.weight": THREE, "c.bias": THREE}


@pytest.mark.parametrize("name", ["type_as", "to"])
def test_a_tensor_that_lends_its_type_is_not_read(name):
    def forward(m, x):
        return m.b(m.a(x).tanh() @ getattr(m.c(x), name)(m.a(x)).mT)

    assert carriers(forward, **LAYERS) == {"c.weight": THREE, "c.bias": THREE}


def test_one_of_two_products_over_the_same_keys():
    """The first factor of one product carries nothing in the other one."""

    def forward(m, x):
        key = m.c(x)
        return m.b(m.a(x).tanh() @ key.mT) + m.b(key @ m.d(x).tanh().mT)

    found = carriers(forward, **LAYERS, d=nn.Linear(4, 3))
    assert found == {"c.weight": THREE, "c.bias": THREE}


def test_without_products_nothing_carries():
    assert carriers(lambda m, x: m.b(m.a(x).tanh()), **linears((4, 3), (3, 2))) == {}
    graph = s3d.trace(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(5, 4))
    assert graph.divided == ()
