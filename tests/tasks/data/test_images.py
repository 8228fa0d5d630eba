import torch

from nni_s3d.tasks.data.images import Images, augmented
from nni_s3d.tasks.data.samples import View


def images() -> Images:
    return Images(torch.arange(2 * 16, dtype=torch.uint8).reshape(2, 1, 4, 4), torch.arange(2))


def test_a_part_of_a_set_is_a_set():
    part = images()[torch.tensor([1, 0])]
    assert (len(part), part.shape) == (2, (1, 4, 4))
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.pixels[1], images().pixels[0])


def test_without_pads_and_flips_or_without_a_generator_images_stay():
    pixels = images().pixels
    assert torch.equal(augmented(pixels, View(torch.Generator())), pixels)
    assert torch.equal(augmented(pixels, View(None, pad=1, flip=True)), pixels)


def test_a_batch_is_what_a_view_shows_of_it():
    ((pixels, labels),) = images().batches([torch.tensor([1, 0])], View(None, share=(1, 2)))
    assert labels.tolist() == [0]
    assert torch.equal(pixels, images().pixels[:1])
