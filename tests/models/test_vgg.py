import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.models import vgg, vgg_small
from tests.models.contract import ModelContract, widths_of

NAMES = [f"conv{i}" for i in range(1, 9)]


class TestVGG(ModelContract):
    CASES = (
        ("vgg", lambda: vgg((3, 4, 5, 3, 4, 6, 3, 4)), (2, 3, 16, 16)),
        ("small 8", lambda: vgg_small((3, 4, 5, 3), image_size=8), (3, 1, 8, 8)),
        ("small 32", lambda: vgg_small((3, 4, 5, 3), 7, 3, 32), (2, 3, 32, 32)),
    )


def test_every_width_is_that_of_the_group_of_its_name():
    assert list(widths_of(vgg(), 1, 3, 32, 32)) == NAMES
    widths = {name: 3 + i for i, name in enumerate(NAMES)}
    assert widths_of(vgg(widths=widths), 1, 3, 32, 32) == widths


def test_the_small_one_has_four_widths():
    assert widths_of(vgg_small((3, 4, 5, 6)), 1, 1, 28, 28) == dict(zip(NAMES[:4], (3, 4, 5, 6), strict=True))


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="image_size: expected one of 32, 28, 8, got 16"):
        vgg_small(image_size=16)
    with pytest.raises(ConfigError, match="widths: expected 8 of them"):
        vgg((3, 4))
