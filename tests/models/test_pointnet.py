import pytest
import torch

from nni_s3d.errors import ConfigError
from nni_s3d.models import pointnet
from nni_s3d.models.pointnet import NAMES
from tests.models.contract import ModelContract, widths_of


class TestPointNet(ModelContract):
    CASES = (("pointnet", lambda: pointnet((4, 3, 5, 6), num_classes=5), (2, 3, 10)),)
    REFUSED = frozenset({"classifier", "conv2", "input_transform.matrix", "feature_transform.matrix"})


def test_it_has_the_published_size():
    """3.5 million with both transforms; Table 3 of the S3D paper has 2.85 of a network that it does not describe."""
    assert sum(p.numel() for p in pointnet().parameters()) == 3_480_049


def test_transforms_begin_as_the_identity():
    model, x = pointnet(num_classes=5).eval(), torch.randn(2, 3, 10)
    assert torch.equal(model.input_transform(x), torch.eye(3).expand(2, 3, 3))


def test_the_order_of_points_does_not_matter():
    model, x = pointnet(num_classes=5).double().eval(), torch.randn(2, 3, 10, dtype=torch.float64)
    torch.testing.assert_close(model(x), model(x.flip(-1)))


def test_every_width_is_that_of_the_group_of_its_name():
    widths = {name: 3 + i for i, name in enumerate(NAMES)}
    found = widths_of(pointnet(widths), 2, 3, 10)
    assert {name: found[name] for name in widths} == widths


def test_bad_widths_are_refused():
    with pytest.raises(ConfigError, match=r"expected 4 of them \(conv1, conv3, conv4, conv5\), got 2"):
        pointnet((3, 4))
