import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from nni_s3d.errors import DataError
from nni_s3d.tasks.data import Folder, Loader, load
from nni_s3d.tasks.data.image_files import read_image_folder
from tests import image_folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return image_folder.write(tmp_path_factory.mktemp("images"))


def test_train_and_val_are_the_training_and_the_test_set(root):
    data = load("imagefolder", 0.25, root=root.parent, folder=Folder(root.name, 28))
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 12, 18)
    assert (data.shape, data.num_classes) == (torch.Size((3, 28, 28)), 3)
    assert not set(data.train.numbers.tolist()) & set(data.validation.numbers.tolist())
    assert data.train.labels.bincount().tolist() == torch.bincount(data.train.numbers // 16).tolist()


def test_images_are_shown_as_the_centre_of_what_is_resized(root):
    _, test = read_image_folder(root, 28, 0)
    ((inputs, labels),) = Loader(test, *test.statistics())
    image = Image.open(root / "val" / "blue" / "0.png")
    expected = TF.to_tensor(TF.center_crop(TF.resize(image, 32), 28))
    expected = TF.normalize(expected, *test.statistics())
    torch.testing.assert_close(inputs[0], expected)
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6


def shown(root, workers, epoch=0, flip=True, batch_size=10):
    train, _ = read_image_folder(root, 28, workers)
    loader = Loader(train, (0.0,) * 3, (1.0,) * 3, batch_size, seed=1, flip=flip)
    return [torch.cat(parts) for parts in zip(*loader.epoch(epoch), strict=True)]


def test_an_epoch_follows_from_its_number_and_the_seed_alone(root):
    state = torch.get_rng_state()
    once, again = shown(root, 0), shown(root, 2, batch_size=7)
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])
    assert torch.equal(torch.get_rng_state(), state)
    other = shown(root, 0, epoch=1)
    assert not torch.equal(once[1], other[1])
    assert sorted(once[1].tolist()) == sorted(other[1].tolist())


def test_training_images_are_crops_and_every_other_one_a_mirror_image(tmp_path):
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    for part in ("train", "val"):
        (tmp_path / part / "one").mkdir(parents=True)
        for i in range(40):
            Image.fromarray(ramp).save(tmp_path / part / "one" / f"{i}.png")
    rising = [bool(image[0, 0, -1] > image[0, 0, 0]) for image in shown(tmp_path, 0)[0]]
    assert 8 < sum(rising) < 32
    images = shown(tmp_path, 0, flip=False)[0]
    assert all(image[0, 0, -1] > image[0, 0, 0] for image in images)
    assert len({float(image[0, 0, 0]) for image in images}) > 10


def test_parts_of_a_set_keep_their_augmentation(root):
    train, _ = read_image_folder(root, 28, 0)
    loader = Loader(train[torch.tensor([7])], (0.0,) * 3, (1.0,) * 3, seed=1)
    ((alone, label),) = loader.epoch(0)
    pair = Loader(train[torch.tensor([7, 20])], (0.0,) * 3, (1.0,) * 3, seed=1)
    ((both, labels),) = pair.epoch(0)
    assert torch.equal(alone[0], both[labels.tolist().index(int(label))])


def test_shares_are_parts_of_every_batch(root):
    train, _ = read_image_folder(root, 28, 0)
    whole = Loader(train, (0.0,) * 3, (1.0,) * 3, batch_size=9, seed=1)
    share = replace(whole, share=(1, 2))
    for (inputs, labels), (some, of_them) in zip(whole.epoch(0), share.epoch(0), strict=True):
        assert torch.equal(some, inputs[1::2])
        assert torch.equal(of_them, labels[1::2])


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "images")


def test_a_folder_that_is_missing_is_refused(copy):
    shutil.rmtree(copy / "val")
    with pytest.raises(DataError, match=r"images/val: expected a folder of images for each class, got: .*No such file"):
        read_image_folder(copy, 28, 0)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_without_an_image_is_refused(copy, part):
    for path in (copy / part / "green").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"images/{part}: expected .*, got: Found no valid file for the classes green"):
        read_image_folder(copy, 28, 0)


def test_other_classes_for_the_test_are_refused(copy):
    (copy / "val" / "red").rename(copy / "val" / "yellow")
    with pytest.raises(DataError, match="images: expected the same classes in train and val, got red in one of them"):
        read_image_folder(copy, 28, 0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [slice(0, 900), slice(0, 0)])
def test_a_file_that_is_cut_short_is_named_in_one_line(copy, workers, content):
    path = copy / "val" / "green" / "3.png"
    path.write_bytes(path.read_bytes()[content])
    _, test = read_image_folder(copy, 28, workers)
    with pytest.raises(DataError, match=r"green/3\.png: expected an image that can be read, got: ") as caught:
        list(Loader(test, *test.statistics(), batch_size=4))
    assert "\n" not in str(caught.value)
