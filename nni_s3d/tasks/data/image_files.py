"""Images in files, one folder for each class, read by workers as they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nni_s3d.errors import DataError, first_line
from nni_s3d.growth.seeds import seed_for
from nni_s3d.tasks.data.samples import View

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MARGIN = 256 / 224  # an image is shown as the centre of one whose shorter side is this much longer


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A labelled set of images that are read from their files."""

    paths: np.ndarray[Any, np.dtype[np.bytes_]]  # (n,) one array, of which workers share the memory
    labels: Tensor  # (n,) int64
    numbers: Tensor  # (n,) int64, of the files in their folder: what an image's augmentation follows from
    size: int  # height and width
    workers: int  # processes that read; with 0, this one reads

    def __len__(self) -> int:
        return self.labels.numel()

    def __getitem__(self, index: Tensor) -> ImageFiles:
        return replace(self, paths=self.paths[index.numpy()], labels=self.labels[index], numbers=self.numbers[index])

    @property
    def shape(self) -> torch.Size:
        """(channels, height, width) of an image."""
        return torch.Size((3, self.size, self.size))

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the usual statistics of ImageNet; those of the files would take a pass over all of them."""
        return _MEAN, _STD

    def batches(self, indices: Sequence[Tensor], view: View) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over batches, see `Samples`; a random crop has a random size and aspect, too.

        Raises:
            DataError: a file holds no image, or a part of one.
        """
        device = torch.device(view.device)
        loader: DataLoader[Any] = DataLoader(
            _Reading(self, None if view.generator is None else view.generator.initial_seed(), view.flip),
            batch_sampler=[view.shown(index).tolist() for index in indices],
            num_workers=min(self.workers, len(indices)),
            collate_fn=_batch,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # or it would draw from the one that dropout draws from
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            pixels, labels = batch
            yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


class _Reading(Dataset[tuple[Tensor, Tensor] | DataError]):
    """What a worker does: an image by its place in the set, augmented if there is a seed."""

    def __init__(self, files: ImageFiles, seed: int | None, flip: bool) -> None:
        from torchvision import transforms as T

        self._files, self._seed = files, seed
        whole = [T.Resize(round(_MARGIN * files.size)), T.CenterCrop(files.size)]
        random = [T.RandomResizedCrop(files.size), T.RandomHorizontalFlip(0.5 if flip else 0.0)]
        self._transform = T.Compose([*(whole if seed is None else random), T.PILToTensor()])

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor] | DataError:
        """Return pixels and label, or the error that the process which trains is to raise."""
        from torchvision.datasets.folder import default_loader

        path = os.fsdecode(self._files.paths[place])
        try:
            image = default_loader(path)
        except Exception as error:  # Pillow has many words for files that are cut short or no images
            return DataError(f"{path}: expected an image that can be read, got: {first_line(error)}")
        with torch.random.fork_rng(devices=[]):
            if self._seed is not None:
                torch.manual_seed(seed_for(self._seed, int(self._files.numbers[place])))
            return self._transform(image), self._files.labels[place]


def _batch(samples: list[Any]) -> tuple[Tensor, Tensor] | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    pixels, labels = zip(*samples, strict=True)
    return torch.stack(pixels), torch.stack(labels)


def read_image_folder(root: Path, size: int, workers: int) -> tuple[ImageFiles, ImageFiles]:
    """Return the images of the folders train/ and val/, which have one folder for each class.

    Args:
        root: the folder of these two.
        size: height and width of the images.
        workers: processes that read them.

    Raises:
        DataError: a folder is not there, a class has no image, or the two have not the same classes.
    """
    from torchvision.datasets import ImageFolder

    parts, classes = [], []
    for part in ("train", "val"):
        try:
            folder = ImageFolder(root / part)
        except OSError as error:
            reason = first_line(error)
            raise DataError(f"{root / part}: expected a folder of images for each class, got: {reason}") from error
        paths = np.array([os.fsencode(path) for path, _ in folder.samples])
        labels = torch.tensor(folder.targets)
        parts.append(ImageFiles(paths, labels, torch.arange(len(labels)), size, workers))
        classes.append(folder.classes)
    if different := sorted(set(classes[0]) ^ set(classes[1])):
        raise DataError(f"{root}: expected the same classes in train and val, got {different[0]} in one of them only")
    return parts[0], parts[1]
