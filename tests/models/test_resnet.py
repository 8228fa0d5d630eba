import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.models import resnet
from tests.models.contract import ModelContract, widths_of


class TestResNet(ModelContract):
    CASES = (("resnet", lambda: resnet((3, 4, 5, 6, 3, 4, 5, 7, 3), blocks=2), (2, 3, 8, 8)),)


def test_every_width_is_that_of_the_group_of_its_name():
    default = widths_of(resnet(blocks=2), 1, 3, 32, 32)
    widths = {name: 3 + i for i, name in enumerate(default)}
    assert widths_of(resnet(widths=widths, blocks=2), 1, 3, 32, 32) == widths


def test_streams_are_named_after_the_layers_that_begin_them():
    widths = widths_of(resnet(blocks=1), 1, 3, 32, 32)
    streams = {"conv0": 16, "stage2.0.conv2": 32, "stage3.0.conv2": 64}
    insides = {"stage1.0.conv1": 16, "stage2.0.conv1": 32, "stage3.0.conv1": 64}
    assert widths == streams | insides


def test_it_has_as_many_layers_as_the_paper_says():
    assert sum(len(p.shape) in (2, 4) for p in resnet(blocks=3).parameters()) == 6 * 3 + 2 + 2  # and two shortcuts


def test_bad_widths_are_refused():
    with pytest.raises(ConfigError, match=r"expected 6 of them \(conv0, stage1\.0\.conv1, .*conv2\), got 2"):
        resnet((3, 4), blocks=1)
