import pytest
import torch

from nni_s3d.models.point_sets import EdgeConv, farthest, in_ball, nearest, picked


def cloud(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_nearest_points_are_those_of_all_distances():
    x, metric = cloud(2, 3, 9), torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    scaled = (x * metric.sqrt()[:, None]).transpose(1, 2)
    expected = torch.cdist(scaled, scaled).argsort(-1)[..., :4]
    assert torch.equal(nearest(x, metric, 4), expected)
    assert torch.equal(nearest(x, metric, 4)[..., 0], torch.arange(9).expand(2, 9))


def test_points_are_picked_cloud_by_cloud():
    points, index = cloud(2, 5, 3), torch.tensor([[[0, 4]], [[1, 1]]])
    expected = torch.stack([points[0, [0, 4]], points[1, [1, 1]]])[:, None]
    assert torch.equal(picked(points, index), expected)


def test_points_far_apart_are_the_farthest_from_all_before():
    points = cloud(2, 12, 3)
    index = farthest(points, 5)
    for cloud_points, chosen in zip(points, index.tolist(), strict=True):
        assert chosen[0] == 0
        for n in range(1, 5):
            before = torch.cdist(cloud_points, cloud_points[chosen[:n]]).min(dim=1).values
            assert chosen[n] == int(before.argmax())


def test_a_ball_has_its_first_points_and_repeats_one_where_there_are_few():
    points = torch.tensor([[[0.0, 0, 0], [5, 0, 0], [0.5, 0, 0], [0.9, 0, 0], [-0.4, 0, 0]]])
    assert in_ball(points, points[:, :2], 1.0, 3).tolist() == [[[0, 2, 3], [1, 1, 1]]]


@pytest.mark.parametrize("k", [1, 4])
def test_an_edge_convolution_sees_differences_and_the_point(k):
    layer, x = EdgeConv(3, 5, k).double(), cloud(2, 3, 7)
    out, index = layer(x), nearest(x, layer.metric, k)
    assert out.shape == (2, 5, 7, k)
    here, there = x[1, :, 6], x[1, :, index[1, 6, k - 1]]
    expected = layer.weight[:, :, 0, 0] @ torch.cat((there - here, here))
    torch.testing.assert_close(out[1, :, 6, k - 1], expected)
