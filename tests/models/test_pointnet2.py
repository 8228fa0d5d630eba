import pytest
import torch

from nni_s3d.errors import ConfigError
from nni_s3d.models import pointnet2
from nni_s3d.models.pointnet2 import NAMES
from tests.models.contract import ModelContract, widths_of

BALLS = ((8, 0.9, 4), (4, 1.5, 3))


class TestPointNet2(ModelContract):
    CASES = (("pointnet2", lambda: pointnet2((3, 4, 3, 4, 3, 4, 5, 4, 6), num_classes=5, balls=BALLS), (2, 3, 20)),)


def test_it_has_the_published_size():
    """1.48 million; Table 3 of the S3D paper has 0.86 of a network that it does not describe."""
    assert sum(p.numel() for p in pointnet2().parameters()) == 1_475_688


def test_a_cloud_that_is_moved_has_the_same_balls():
    model, x = pointnet2(num_classes=5, balls=BALLS).double().eval(), torch.randn(2, 3, 20, dtype=torch.float64)
    (centres, features), (moved, same) = model.set1(x.mT, None), model.set1(x.mT + 1, None)
    torch.testing.assert_close(centres + 1, moved)
    torch.testing.assert_close(features, same)
    assert (centres.shape, features.shape) == ((2, 8, 3), (2, 8, 128))


def test_every_width_is_that_of_the_group_of_its_name():
    widths = {name: 3 + i for i, name in enumerate(NAMES)}
    found = widths_of(pointnet2(widths, balls=BALLS), 2, 3, 20)
    assert {name: found[name] for name in widths} == widths


def test_bad_widths_are_refused():
    with pytest.raises(ConfigError, match=r"expected 9 of them \(set1\.conv1, .*set3\.conv3\), got 2"):
        pointnet2((3, 4))
