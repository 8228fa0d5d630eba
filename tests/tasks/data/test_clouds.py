import torch

from nni_s3d.tasks.data.clouds import Clouds, stretched
from nni_s3d.tasks.data.samples import View


def test_a_part_of_a_set_is_a_set():
    clouds = Clouds(torch.rand(4, 3, 5), torch.arange(4))
    part = clouds[torch.tensor([3, 1])].to("cpu")
    assert (len(part), part.shape) == (2, (3, 5))
    assert part.labels.tolist() == [3, 1]
    assert torch.equal(part.points[0], clouds.points[3])


def test_every_axis_of_every_cloud_has_a_factor_and_a_distance_of_its_own():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2000, 3, 2, dtype=torch.float64, generator=generator)
    out = stretched(points, View(generator, scale=1.5, shift=0.2))
    factors = (out[..., 1] - out[..., 0]) / (points[..., 1] - points[..., 0])
    distances = out[..., 0] - factors * points[..., 0]
    assert 2 / 3 <= factors.min() < 0.67
    assert 1.49 < factors.max() <= 1.5
    assert -0.2 <= distances.min() < -0.199
    assert 0.199 < distances.max() <= 0.2
    both = torch.cat((factors, distances), 1)
    assert (torch.corrcoef(both.T) - torch.eye(6)).abs().max() < 0.1


def test_nothing_is_done_where_nothing_is_asked():
    points = torch.rand(3, 3, 4)
    assert torch.equal(stretched(points, View(torch.Generator())), points)
    assert torch.equal(stretched(points, View(None, scale=1.5, shift=0.2)), points)
