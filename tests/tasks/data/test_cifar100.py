import os
import pickle

import numpy as np
import pytest
import torch

from nni_s3d.errors import DataError
from nni_s3d.tasks.data.cifar100 import FOLDER, read_cifar100


def content(n=6, **changes):
    pixels = np.random.default_rng(n).integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": pixels, "fine_labels": [7 * i % 100 for i in range(n)], "filenames": ["x"] * n} | changes


def write(root, train, test, protocol=2):
    (root / FOLDER).mkdir(exist_ok=True)
    for name, part in (("train", train), ("test", test)):
        (root / FOLDER / name).write_bytes(part if isinstance(part, bytes) else pickle.dumps(part, protocol))


@pytest.mark.parametrize("protocol", [2, 4])
def test_images_and_labels_are_those_of_the_file(tmp_path, protocol):
    first, second = content(6), content(3)
    write(tmp_path, first, second, protocol)
    for images, part in zip(read_cifar100(tmp_path), (first, second), strict=True):
        assert images.pixels.shape == (len(part["data"]), 3, 32, 32)
        assert torch.equal(images.pixels.flatten(1), torch.from_numpy(part["data"]))
        assert images.labels.tolist() == part["fine_labels"]


class Trap:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


TRAPS = {
    "a call": Trap(os.mkdir, "trapped"),
    "eval": Trap(eval, "__import__('os').mkdir('trapped')"),
    "among the labels": content(fine_labels=[Trap(os.mkdir, "trapped")]),
    "in an array of objects": content(data=np.array([Trap(os.mkdir, "trapped")], dtype=object)),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_no_code_runs(tmp_path, monkeypatch, trap):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, TRAPS[trap], content())
    with pytest.raises(DataError, match=r"train: expected .* got \w+\.\w+, which is no array; put them there"):
        read_cifar100(tmp_path)
    assert not (tmp_path / "trapped").exists()
    pickle.loads((tmp_path / FOLDER / "train").read_bytes())  # what this test would find
    assert (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (b"junk", "train: expected .*, got "),
        (pickle.dumps(content())[:-50], "train: expected .*, got "),
        (content(fine_labels=[1, 2]), "got 2 labels of 6 images"),
        (content(fine_labels=[1, 2, 3, 4, 5, 100]), "got 6 labels of 6 images, or such as are not from 0 to 99"),
        (content(fine_labels=[1, 2, 3, 4, 5, "x"]), "or such as are not from 0 to 99"),
        (content(data=np.zeros((6, 3071), np.uint8)), r"got an array of uint8, \(6, 3071\)"),
        (content(data=np.zeros((6, 3072))), r"got an array of float64, \(6, 3072\)"),
        ({"data": 3}, "got 'fine_labels'"),
        ([1], "got list indices"),
    ],
)
def test_what_is_no_cifar_is_refused_in_one_line(tmp_path, train, message):
    write(tmp_path, train, content())
    with pytest.raises(DataError, match=message) as caught:
        read_cifar100(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train: expected .* got none; .* NNI_S3D_DATA"):
        read_cifar100(tmp_path)
