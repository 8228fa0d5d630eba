from dataclasses import replace

import pytest
import torch

from nni_s3d.tasks.data import Clouds, Images, Loader


def images(n=10, size=4):
    pixels = torch.arange(n * size * size, dtype=torch.float32).remainder(256).to(torch.uint8)
    return Images(pixels.reshape(n, 1, size, size), torch.arange(n))


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    loader = Loader(images(), (0.0,), (1.0,), batch_size=3, seed=1)
    labels = [torch.cat([y for _, y in loader.epoch(epoch)]).tolist() for epoch in (0, 1, 0)]
    assert sorted(labels[0]) == list(range(10))
    assert labels[0] != labels[1]
    assert labels[0] == labels[2]
    assert len(loader) == 4


def test_without_a_seed_the_order_is_that_of_the_set():
    loader = Loader(images(), (0.0,), (1.0,), batch_size=4)
    assert torch.cat([y for _, y in loader]).tolist() == list(range(10))


def test_every_crop_is_a_window_of_the_padded_image():
    one = images(1, 4)
    padded = torch.nn.functional.pad(one.pixels.float() / 255, (1, 1, 1, 1))[0, 0]
    windows = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    loader = Loader(one, (0.0,), (1.0,), seed=0, pad=1)
    crops = {
        next(k for k, w in enumerate(windows) if torch.equal(w, x[0, 0])) for e in range(60) for x, _ in loader.epoch(e)
    }
    assert crops == set(range(9))


def test_flips_are_mirror_images():
    one = images(1, 4)
    still = one.pixels.float() / 255
    loader = Loader(one, (0.0,), (1.0,), seed=0, flip=True)
    kinds = [torch.equal(x, still) for e in range(20) for x, _ in loader.epoch(e)]
    assert 0 < sum(kinds) < 20
    flipped = next(x for e in range(20) for x, _ in loader.epoch(e) if not torch.equal(x, still))
    assert torch.equal(flipped, still.flip(-1))


def test_a_batch_may_be_larger_than_the_set():
    (batch,) = Loader(images(), (0.0,), (1.0,), batch_size=10**30)
    assert len(batch[1]) == 10


def test_images_are_normalised_per_channel():
    pixels = torch.randint(256, (5, 2, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ((inputs, labels),) = Loader(Images(pixels, torch.arange(5)), (0.1, 0.2), (0.5, 2.0))
    expected = [(pixels[:, 0] / 255 - 0.1) / 0.5, (pixels[:, 1] / 255 - 0.2) / 2.0]
    torch.testing.assert_close(inputs, torch.stack(expected, dim=1))
    assert inputs.dtype == torch.float32
    assert labels.tolist() == [0, 1, 2, 3, 4]


def clouds(n=6, points=5):
    generator = torch.Generator().manual_seed(0)
    return Clouds(torch.rand(n, 3, points, generator=generator) + 0.5, torch.arange(n))


def test_clouds_are_not_normalised():
    ((inputs, labels),) = Loader(clouds(), (), ())
    assert torch.equal(inputs, clouds().points)
    assert labels.tolist() == list(range(6))


def test_clouds_are_stretched_and_moved_anew_in_every_epoch_and_the_same_every_time():
    loader = Loader(clouds(), (), (), batch_size=4, seed=3, scale=1.5, shift=0.2)
    first, again, second = ([x for x, _ in loader.epoch(epoch)] for epoch in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], second[0])
    labels = next(iter(loader))[1]
    assert not torch.allclose(first[0], clouds().points[labels])


@pytest.mark.parametrize("n", [10, 7])
@pytest.mark.parametrize("kind", [images, clouds])
def test_shares_are_parts_of_every_batch(kind, n):
    own = {"pad": 1, "flip": True} if kind is images else {"scale": 1.5, "shift": 0.2}
    statistics = ((0.0,), (1.0,)) if kind is images else ((), ())
    whole = Loader(kind(n), *statistics, batch_size=4, seed=1, **own)
    shares = [list(replace(whole, share=(rank, 3)).epoch(2)) for rank in range(3)]
    for number, (inputs, labels) in enumerate(whole.epoch(2)):
        for rank, share in enumerate(shares):
            assert torch.equal(share[number][0], inputs[rank::3])
            assert torch.equal(share[number][1], labels[rank::3])
        parts = [share[number][1].double() for share in shares]
        mean = sum(
            part.mean() * replace(whole, share=(0, 3)).weight(number, len(part)) / 3 for part in parts if len(part)
        )
        assert float(mean) == pytest.approx(float(labels.double().mean()))
