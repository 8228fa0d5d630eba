"""A producer applied to its input: u = X theta, products with X and its transpose."""

import pytest
import torch
from torch.nn import functional as F

from nni_s3d.growth.curvature.producer import LinearCall, Producer
from nni_s3d.growth.graph.channels import Layer
from nni_s3d.growth.graph.own_tensors import OwnTensors


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


CALLS = {
    "linear": (F.linear, (draw(5, 4), draw(3, 4), draw(3)), {}),
    "without bias": (F.linear, (draw(5, 4), draw(3, 4)), {}),
    "convolution": (F.conv2d, (draw(5, 4, 6, 6), draw(3, 4, 3, 3), draw(3), 2, 1), {}),
    "by name": (F.conv2d, (), {"input": draw(5, 4, 6, 6), "weight": draw(3, 4, 3, 3), "padding": 1}),
    "embedding": (F.embedding, (torch.tensor([[0, 2, 2], [1, 0, 3]]), draw(4, 3)), {"padding_idx": 1}),
    "transposed": (F.conv_transpose2d, (draw(5, 4, 6, 6), draw(4, 3, 2, 2), draw(3)), {"stride": 2}),
}


def producer_of(name):
    func, args, kwargs = CALLS[name]
    linear = LinearCall(func, args, kwargs)
    layer = Layer("layer", name, ("weight", "bias")[: len(linear.parameters)], ())
    return Producer(linear), linear, layer


@pytest.mark.parametrize("name", CALLS)
def test_products_with_the_input_and_its_transpose(name):
    producer, linear, layer = producer_of(name)
    func, args, kwargs = CALLS[name]
    out = producer.run(linear.input)
    torch.testing.assert_close(out, func(*args, **kwargs))
    assert (producer.dtype, producer.device) == (out.dtype, out.device)
    filters = {n: draw(*p.shape) + 1 for n, p in zip(layer.parameters, linear.parameters, strict=True)}
    moved, w = producer.times(filters, layer), draw(*out.shape)
    back = producer.transpose_times(w, layer)
    assert back.keys() == filters.keys()
    torch.testing.assert_close((moved * w).sum(), sum((back[n] * filters[n]).sum() for n in filters))
    twice = producer.times({n: 2 * f for n, f in filters.items()}, layer)
    torch.testing.assert_close(twice, 2 * moved)


@pytest.mark.parametrize(
    ("name", "shape", "fits"),
    [
        ("convolution", (3, 1, 1), True),
        ("convolution", (1, 3, 1, 1), True),
        ("convolution", (), True),
        ("convolution", (3, 3), False),
        ("convolution", (3,), False),
        ("linear", (3,), True),
        ("transposed", (3, 1, 1), False),
    ],
)
def test_a_scale_per_filter_is_absorbed(name, shape, fits):
    producer, linear, layer = producer_of(name)
    out, scale = producer.run(linear.input), draw(*shape) + 3 if shape else torch.tensor(2.0, dtype=torch.float64)
    filters = dict(zip(layer.parameters, linear.parameters, strict=True))
    assert producer.absorb_scale(scale) == fits
    torch.testing.assert_close(producer.times(filters, layer), scale * out if fits else out)


def test_the_derivative_with_respect_to_the_input():
    func, (x, weight, bias), _ = CALLS["linear"]
    for needed in (False, True):
        producer = Producer(LinearCall(func, (x.clone().requires_grad_(needed), weight, bias), {}))
        producer.run(x)
        (back,) = producer.linearize([draw(5, 3)])
        assert (back is not None) == needed
        if needed:
            torch.testing.assert_close(back, draw(5, 3) @ weight)


def test_a_view_of_a_parameter():
    weight, bias, x = draw(4, 3), draw(3), draw(5, 4)
    own = OwnTensors({"w": weight, "b": bias})
    view = weight.T
    own.follow(torch.t, (weight,), {}, view)
    linear = LinearCall(F.linear, (x, view, bias), {}, own)
    assert linear.names == ["w", "b"]
    assert linear.parameters[0] is weight
    assert linear.transposed
    assert linear.call[2] == (x, view, bias)
    torch.testing.assert_close(linear.run([2 * weight, bias]), F.linear(x, 2 * view, bias))
    producer, layer = Producer(linear), Layer("", "linear", ("w", "b"), ())
    out = producer.run(x)
    back = producer.transpose_times(torch.ones_like(out), layer)
    torch.testing.assert_close(back["w"], x.sum(0)[:, None].expand(4, 3))
    assert not producer.absorb_scale(draw(3))
