import pytest
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.growth.graph.rules.test_shapes import convolutions
from tests.wide import Net, check_accepted, expect_reason, sample

PIXELS = {
    "nn.PixelShuffle": (nn.PixelShuffle(2), 4, 4),
    "F.pixel_shuffle": (lambda y: F.pixel_shuffle(y, 4), 1, 1),
    "nn.PixelUnshuffle": (nn.PixelUnshuffle(2), 64, 16),
    "there and back": (lambda y: F.pixel_unshuffle(F.pixel_shuffle(y.tanh(), 2), 2), 16, 4),
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixel_shuffles(name):
    shuffle, columns, width = PIXELS[name]
    modules = convolutions(columns)
    check_accepted(lambda m, x: m.b(shuffle(m.a(x)).tanh()), modules, (2, 3, 4, 4), {"a": width}, 3)


@pytest.mark.parametrize("name", ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"])
def test_shuffles_of_something_else_than_channels_are_refused(name):
    model = Net(
        lambda m, x: getattr(F, name)(m.b(m.a(x).tanh()).transpose(1, 3), 2),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 4, 1),
    ).double()
    expect_reason(s3d.trace(model, sample(2, 3, 8, 8))["b"], f"{name} (shuffles|moves) .* than its channels")
