"""The Hessian of h over a few functions, against that of autograd."""

import torch

from nni_s3d.growth.curvature.elementwise_nodes import Elementwise, derivatives
from nni_s3d.growth.curvature.nodes import Linear, TwiceDifferentiable
from nni_s3d.growth.curvature.segment import Segment
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer

W = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def elementwise(func, inputs, outputs):
    node = Elementwise(inputs, func, lambda x: derivatives(func, x))
    node.outputs = outputs
    return node


def recorded():
    """Return nodes of h = <g, softmax(tanh(a) W' + sin(b))> after a forward and a backward pass, with a, b, g."""
    a, b, g = (torch.randn(5, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d)) for d in (4, 3, 3))
    first, second = elementwise(torch.tanh, [0], [2]), elementwise(torch.sin, [1], [3])
    third = Linear([2, 3], lambda x, y: x @ W.T + y, lambda x, y: x @ W.T + y, False, ZeroBuffer())
    fourth = TwiceDifferentiable([4], lambda x: torch.softmax(x, -1))
    third.outputs, fourth.outputs = [4], [5]
    fourth.run(third.run(first.run(a), second.run(b)).detach())
    cotangents = third.linearize(fourth.linearize([g]))
    first.linearize(cotangents[:1])
    second.linearize(cotangents[1:])
    return [first, second, third, fourth], (a, b), g


def hessian_times(leaves, g, tangents):
    def h(a, b):
        return (g * torch.softmax(torch.tanh(a) @ W.T + torch.sin(b), -1)).sum()

    return torch.autograd.functional.hvp(h, leaves, tangents)[1]


def test_a_product_is_that_of_autograd():
    nodes, leaves, g = recorded()
    segment = Segment(nodes)
    assert segment.inputs == {0, 1, 2, 3, 4}
    tangents = tuple(torch.ones_like(leaf) for leaf in leaves)
    for _ in range(2):  # the second product finds nothing of the first
        given = dict(enumerate(tangents))
        products = segment.hessian_times(given)
        assert given.keys() == {5}  # what is read further on is no tangent of a leaf any more
        torch.testing.assert_close(products, dict(enumerate(hessian_times(leaves, g, tangents))))


def test_leaves_that_are_left_out_are_not_moved():
    nodes, (a, b), g = recorded()
    products = Segment(nodes).hessian_times({0: torch.ones_like(a)})
    expected = hessian_times((a, b), g, (torch.ones_like(a), torch.zeros_like(b)))
    torch.testing.assert_close(products, dict(enumerate(expected)))


def test_what_is_kept_is_known():
    nodes, (a, _), _ = recorded()
    kept = Segment(nodes).tensors()
    assert any(x is nodes[0].slope for x in kept)
    assert any(x is nodes[1].curvature for x in kept)
    assert not any(x is a for x in kept)
