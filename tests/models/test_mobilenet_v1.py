import pytest
import torch

import nni_s3d as s3d
from nni_s3d.errors import ConfigError
from nni_s3d.models import mobilenet_v1, mobilenet_v1_small
from tests.models.contract import ModelContract, widths_of

NAMES = ["conv0", *(f"pw{i}" for i in range(1, 14))]
SMALL = (4, 5, 6, 3, 4, 5)


class TestMobileNetV1(ModelContract):
    CASES = (
        ("32", lambda: mobilenet_v1((4, 3, 5, 4, 6, 3, 4, 5, 3, 4, 4, 3, 5, 4)), (2, 3, 32, 32)),
        ("224", lambda: mobilenet_v1((3,) * 14, num_classes=7, image_size=224), (1, 3, 224, 224)),
        ("small 8", lambda: mobilenet_v1_small(SMALL), (3, 1, 8, 8)),
        ("small 28", lambda: mobilenet_v1_small(SMALL, image_size=28), (3, 1, 28, 28)),
        ("small 32", lambda: mobilenet_v1_small(SMALL, in_channels=3, image_size=32), (2, 3, 32, 32)),
    )


def test_it_has_the_published_size():
    cost = s3d.count(s3d.trace(mobilenet_v1(), torch.zeros(1, 3, 32, 32)))
    assert (round(cost.params / 1e6, 3), round(cost.macs / 1e6, 2), round(cost.flops / 1e6, 2)) == (3.309, 46.45, 94.13)


def test_its_seed_has_the_published_size():
    cost = s3d.count(s3d.trace(mobilenet_v1((32,) * 14), torch.zeros(1, 3, 32, 32)))
    assert (cost.params, round(cost.macs / 1e6, 2)) == (22_948, 3.21)


def test_every_width_is_that_of_the_group_of_its_name():
    assert list(widths_of(mobilenet_v1(), 1, 3, 32, 32)) == NAMES
    widths = {name: 3 + i for i, name in enumerate(NAMES)}
    assert widths_of(mobilenet_v1(widths=widths), 1, 3, 32, 32) == widths


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32)])
def test_the_small_one_has_six_widths(channels, size):
    model = mobilenet_v1_small(SMALL, in_channels=channels, image_size=size)
    assert widths_of(model, 2, channels, size, size) == dict(zip(NAMES[:6], SMALL, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mobilenet_v1((1, 2)), "expected 14 of them"),
        (lambda: mobilenet_v1_small({"conv0": 3}), "'pw1' is missing"),
        (lambda: mobilenet_v1_small({f"pw{i}": 3 for i in range(1, 7)} | {"conv0": 3}), "'pw6' is unknown"),
        (lambda: mobilenet_v1_small((0, 1, 1, 1, 1, 1)), "whole number >= 1 for 'conv0', got 0"),
        (lambda: mobilenet_v1(image_size=33), "image_size: expected one of 224, 32, got 33"),
        (lambda: mobilenet_v1_small(image_size=16), "image_size: expected one of 32, 28, 8, got 16"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
