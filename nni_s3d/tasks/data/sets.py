"""The data sets by name: where each is looked for, and how it is split.

The test set is never part of a choice: the validation set is taken from the training set.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nni_s3d.errors import ConfigError, DataError
from nni_s3d.tasks.data.cifar100 import read_cifar100
from nni_s3d.tasks.data.clouds import Clouds
from nni_s3d.tasks.data.image_files import read_image_folder
from nni_s3d.tasks.data.images import Images
from nni_s3d.tasks.data.modelnet40 import read_modelnet40
from nni_s3d.tasks.data.samples import Samples

POINTS = 1024  # of a cloud
_SPLIT_SEED = 0  # which samples are held out is part of the data set, not of a run


@dataclass(frozen=True)
class DataSet:
    """Three disjoint sets of images or clouds and what is known of them."""

    train: Samples
    validation: Samples
    test: Samples
    num_classes: int
    mean: tuple[float, ...]  # per channel, of the training pixels scaled to 0..1; none for clouds
    std: tuple[float, ...]

    @property
    def shape(self) -> torch.Size:
        """(channels, height, width) of an image, or (3, points) of a cloud."""
        return self.train.shape


@dataclass(frozen=True)
class Folder:
    """Where the images of "imagefolder" are, and how they are read."""

    path: str  # of the folder of train/ and val/, from the directory of the data sets
    image_size: int = 224  # height and width that they are cropped to
    workers: int = 4  # processes that read them

    def __post_init__(self) -> None:
        for name, least in (("image_size", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected a whole number >= {least}, got {getattr(self, name)!r}")


def load(
    name: str,
    validation: float = 0.1,
    samples: int | None = None,
    root: str | Path | None = None,
    folder: Folder | None = None,
    points: int | None = None,
) -> DataSet:
    """Load a data set by name.

    Args:
        name: "digits" (scikit-learn's, no file needed), "fashion_mnist", "cifar100", "imagefolder" or
            "modelnet40".
        validation: fraction of the training set that is held out.
        samples: use only this many samples of the training set, before the split.
        root: directory of the files; by default the environment variable NNI_S3D_DATA or ~/.cache/nni_s3d.
        folder: for "imagefolder" only.
        points: of clouds, how many of each; 1024 by default.

    Raises:
        ConfigError: no such data set, or a number out of range.
        DataError: the files are not there, or not what they should be; the message says what to put where.
    """
    if name not in NAMES:
        raise ConfigError(f"data: expected one of {', '.join(NAMES)}, got {name!r}")
    if not 0 < validation < 1:
        raise ConfigError(f"validation: expected a fraction in (0, 1), got {validation!r}")
    train, test = _read(name, data_directory(root), folder, points or POINTS)
    for part, found in (("training", train), ("test", test)):
        if isinstance(found, Images) and len(found.pixels) != len(found.labels):
            got = f"{len(found.labels)} of {len(found.pixels)} images"
            raise DataError(f"{name}: expected a label for every {part} image, got {got}")
    if samples is not None and not 2 <= samples <= len(train):
        raise ConfigError(f"samples: expected between 2 and {len(train)} for {name}, got {samples!r}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(_SPLIT_SEED))[:samples]
    held_out = max(1, round(validation * len(order)))
    if held_out == len(order):
        raise ConfigError(f"validation: expected a fraction that leaves some of {held_out} samples, got {validation!r}")
    training = train[order[held_out:]]
    classes = int(train.labels.max()) + 1
    return DataSet(training, train[order[:held_out]], test, classes, *training.statistics())


def _read(name: str, root: Path, folder: Folder | None, points: int) -> tuple[Samples, Samples]:
    """Return the training and the test set."""
    check_folder(name, folder)
    if folder is not None:
        return read_image_folder(root / Path(folder.path).expanduser(), folder.image_size, folder.workers)
    return CLOUDS[name](root, points) if name in CLOUDS else _IMAGES[name](root)


def check_folder(name: str, folder: Folder | None) -> None:
    """Raise ConfigError unless a folder is given for "imagefolder", and for it alone."""
    if (name == _FOLDER) != (folder is not None):
        expected = "{path: ...}, of the folder of train/ and val/," if folder is None else f"it with {_FOLDER} only,"
        raise ConfigError(f"folder: expected {expected} got {folder and folder.path!r} with {name}")


def data_directory(root: str | Path | None = None) -> Path:
    """Return where data sets are looked for."""
    return Path(root or os.environ.get("NNI_S3D_DATA") or "~/.cache/nni_s3d").expanduser()


def _digits(root: Path) -> tuple[Images, Images]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy((digits.images * 15).astype(np.uint8))[:, None]  # they come as 0..16
    images = Images(pixels, torch.from_numpy(digits.target).long())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    test = len(images) // 5
    return images[order[test:]], images[order[:test]]


def _fashion_mnist(root: Path) -> tuple[Images, Images]:
    from torchvision.datasets import FashionMNIST

    files = "the four idx files (train-images-idx3-ubyte, ...)"
    train, test = _torchvision(FashionMNIST, root, files, "FashionMNIST/raw")
    return Images(train.data[:, None], train.targets.long()), Images(test.data[:, None], test.targets.long())


def _torchvision(kind: Callable[..., Any], root: Path, files: str, folder: str) -> tuple[Any, Any]:
    """Open both halves of a torchvision data set, which checks that the files are there and whole."""
    try:
        return kind(root, train=True), kind(root, train=False)
    except Exception as error:  # torchvision has many words for files that are missing, cut short or something else
        raise DataError(
            f"{root / folder}: expected {files} of {kind.__name__}, got none that can be read; "
            f"put them there, or set NNI_S3D_DATA to the directory that holds {folder}"
        ) from error


_FOLDER = "imagefolder"
_IMAGES: dict[str, Callable[[Path], tuple[Images, Images]]] = {
    "digits": _digits,
    "fashion_mnist": _fashion_mnist,
    "cifar100": read_cifar100,
}
CLOUDS: dict[str, Callable[[Path, int], tuple[Clouds, Clouds]]] = {"modelnet40": read_modelnet40}
NAMES = (*_IMAGES, _FOLDER, *CLOUDS)
