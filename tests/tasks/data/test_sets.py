import itertools
from pathlib import Path

import pytest
import torch

from nni_s3d.errors import ConfigError, DataError
from nni_s3d.tasks.data import Folder, Loader, load

SHARED = Path(__file__).parents[4] / "shared" / "data"


def test_digits_are_three_disjoint_sets_that_stay_the_same():
    first, second = load("digits", 0.2), load("digits", 0.2)
    assert (len(first.train), len(first.validation), len(first.test)) == (1150, 288, 359)
    assert first.shape == (1, 8, 8)
    assert first.num_classes == 10
    assert torch.equal(first.validation.pixels, second.validation.pixels)


def test_statistics_are_those_of_the_training_set_alone():
    data = load("digits", 0.2)
    batch = torch.cat([x for x, _ in Loader(data.train, data.mean, data.std)])
    assert abs(float(batch.mean())) < 1e-4
    assert float(batch.std()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("name", "folder"), [("fashion_mnist", "FashionMNIST/raw"), ("cifar100", "cifar-100-python")])
def test_missing_files_say_what_to_put_where(name, folder, tmp_path):
    with pytest.raises(DataError, match=f"{folder}.*: expected .* NNI_S3D_DATA"):
        load(name, root=tmp_path)


def test_other_files_are_refused(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, kind in itertools.product(("train", "t10k"), ("images-idx3", "labels-idx1")):
        (folder / f"{part}-{kind}-ubyte").write_bytes(b"junk junk junk")
    with pytest.raises(
        DataError, match=r"FashionMNIST/raw: expected the four idx files .* FashionMNIST, got none that"
    ):
        load("fashion_mnist", root=tmp_path)


def test_bad_settings_are_refused():
    with pytest.raises(
        ConfigError,
        match="data: expected one of digits, fashion_mnist, cifar100, imagefolder, modelnet40, got 'mnist'",
    ):
        load("mnist")
    with pytest.raises(ConfigError, match="validation: expected a fraction"):
        load("digits", validation=1.0)
    with pytest.raises(
        ConfigError, match=r"validation: expected a fraction that leaves some of 200 samples, got 0\.99"
    ):
        load("digits", validation=0.9999, samples=200)
    with pytest.raises(ConfigError, match="samples: expected between 2 and 1438"):
        load("digits", samples=5000)


def test_a_folder_belongs_to_imagefolder(tmp_path):
    with pytest.raises(ConfigError, match=r"folder: expected {path: ...}, .*, got None with imagefolder"):
        load("imagefolder")
    with pytest.raises(ConfigError, match="folder: expected it with imagefolder only, got 'x' with digits"):
        load("digits", folder=Folder("x"))
    with pytest.raises(DataError, match="x/train: expected a folder of images for each class"):
        load("imagefolder", root=tmp_path, folder=Folder("x"))
    with pytest.raises(ConfigError, match="image_size: expected a whole number >= 1, got 0"):
        Folder("x", image_size=0)
    with pytest.raises(ConfigError, match="workers: expected a whole number >= 0, got -1"):
        Folder("x", workers=-1)


def test_fashion_mnist_from_its_files():
    if not (SHARED / "FashionMNIST").is_dir():
        pytest.skip("no FashionMNIST files beside the project")
    data = load("fashion_mnist", 0.1, samples=2000, root=SHARED)
    assert (len(data.train), len(data.validation), len(data.test)) == (1800, 200, 10_000)
    assert data.shape == (1, 28, 28)
    assert data.num_classes == 10
