import torch

from nni_s3d.tasks.data.images import Images, augmented


def images() -> Images:
    return Images(torch.arange(2 * 16, dtype=torch.uint8).reshape(2, 1, 4, 4), torch.arange(2))


def test_a_part_of_a_set_is_a_set():
    part = images()[torch.tensor([1, 0])]
    assert (len(part), part.shape) == (2, (1, 4, 4))
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.pixels[1], images().pixels[0])


def test_without_pads_and_flips_images_stay():
    pixels = images().pixels
    assert torch.equal(augmented(pixels, 0, False, torch.Generator()), pixels)
