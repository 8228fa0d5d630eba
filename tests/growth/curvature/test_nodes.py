"""Pooling, linear and twice differentiable functions between producers and consumers, in small networks and alone."""

import gc
import weakref

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.curvature.nodes import Linear, MaxPool, TwiceDifferentiable, add
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from tests.cases import check_operator

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIDES = {1: (13,), 2: (7, 6), 3: (5, 4, 6)}
POOLS = {
    "1d": nn.MaxPool1d(2),
    "2d": nn.MaxPool2d(2),
    "3d": nn.MaxPool3d(2),
    "overlapping 1d": nn.MaxPool1d(3, 1, padding=1),
    "overlapping 2d": nn.MaxPool2d(3, 2, padding=1),
    "dilated 2d": nn.MaxPool2d(2, 1, dilation=2),
    "up to the border 2d": nn.MaxPool2d((3, 2), ceil_mode=True),
    "adaptive 1d": nn.AdaptiveMaxPool1d(4),
    "adaptive 2d": nn.AdaptiveMaxPool2d((3, 2)),
    "adaptive 3d": nn.AdaptiveMaxPool3d(2),
}


@pytest.mark.parametrize("name", POOLS)
def test_max_pooling(name):
    torch.manual_seed(0)
    dims = int(name[-2])
    pool = POOLS[name]
    layers = CONV[dims](2, 3, 2), nn.Tanh(), pool, CONV[dims](3, 3, 2, padding=1), nn.ReLU(), pool
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4)).double()
    x = torch.randn(5, 2, *SIDES[dims], dtype=torch.float64)
    model(x)
    check_operator(model.eval(), x, torch.randint(4, (5,)))


def linear(function, variable_part=None, constant=False):
    return Linear([0], function, variable_part or function, constant, ZeroBuffer())


W = torch.arange(12, dtype=torch.float64).reshape(3, 4) / 7
NODES = {
    "linear": lambda: linear(lambda x: x @ W.T + 1, lambda x: x @ W.T),
    "linear with a constant part": lambda: linear(lambda x: x @ W.T + 1, constant=True),
    "max pool": lambda: MaxPool([0], lambda x: nn.functional.max_pool1d_with_indices(x, 2), 1),
    "softmax": lambda: TwiceDifferentiable([0], lambda x: torch.softmax(x, dim=-1)),
    "two outputs": lambda: TwiceDifferentiable([0], lambda x: (x.sin(), 5, x.exp()[:, :1])),
}


@pytest.mark.parametrize("name", NODES)
def test_a_product_is_that_of_autograd(name):
    """J t, and J' w + g f'' t, which is the derivative of J' g along t where g moves along w."""
    generator = torch.Generator().manual_seed(0)

    def draw(like):
        return torch.randn(like.shape, dtype=like.dtype, generator=generator)

    node, x = NODES[name](), torch.randn(5, 4, dtype=torch.float64, generator=generator)
    function, tangent = node.function, draw(x)

    def floating(x):
        outputs = function(x)
        outputs = outputs[:1] if isinstance(node, MaxPool) else outputs
        return tuple(y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if isinstance(y, torch.Tensor))

    outputs, images = torch.autograd.functional.jvp(floating, x, tangent)
    node.outputs = list(range(1, 1 + len(outputs)))
    node.run(x)
    g, w = [draw(y) for y in outputs], [draw(y) for y in outputs]

    def pulled(x, *g):
        return torch.autograd.functional.vjp(floating, x, g, create_graph=True)[1]

    torch.testing.assert_close(node.linearize(list(g)), [pulled(x, *g)])
    assert node.linearized
    torch.testing.assert_close(node.jvp([tangent]), list(images))
    _, expected = torch.autograd.functional.jvp(pulled, (x, *g), (tangent, *w))
    torch.testing.assert_close(node.transpose(list(w)), [expected])


def test_only_some_functions_have_curvature():
    assert {name: make().has_curvature for name, make in NODES.items()} == {
        "linear": False,
        "linear with a constant part": False,
        "max pool": False,
        "softmax": True,
        "two outputs": True,
    }


def test_tangents_that_come_to_no_curvature_are_left_out():
    for name in ("linear", "max pool"):
        node = NODES[name]()
        node.outputs, node.reaches_curvature = [1], False
        node.run(torch.ones(5, 4, dtype=torch.float64))
        assert node.jvp([torch.ones(5, 4, dtype=torch.float64)]) == [None]


def test_a_sum_of_which_the_first_part_may_be_nothing():
    x = torch.ones(3)
    assert add(None, x) is x
    assert add(x, x).tolist() == [2, 2, 2]


def test_functions_without_a_second_derivative_are_refused_by_name():
    key = torch.randn(2, 4, 8)
    node = TwiceDifferentiable([0], lambda x: nn.functional.scaled_dot_product_attention(x, key, key))
    out = node.run(torch.randn(2, 4, 8))
    node.linearize([torch.ones_like(out)])
    with pytest.raises(s3d.ModelError, match="a function: expected a function that can be differentiated twice, got"):
        node.jvp([torch.ones_like(out)])


def test_a_node_that_nobody_needs_is_freed():
    """A graph of autograd keeps its hooks where no garbage collector looks: they must not keep the graph."""
    node = Linear((0,), lambda x: x.sin() * 0 + x.mul(2), lambda x: x.mul(2), False, ZeroBuffer())
    node.run(torch.ones(3))
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
