"""CIFAR-100 in the files of its Python version, which are pickles: read by an unpickler that makes arrays alone."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct

from nni_s3d.errors import DataError, first_line
from nni_s3d.tasks.data.images import Images

FOLDER = "cifar-100-python"
_SHAPE = (3, 32, 32)


def _bytes(text: str, encoding: str) -> bytes:
    """Make the bytes of an array of a text, as old pickles have them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return text.encode("latin1")


# What a pickled array consists of, under the names of numpy 1 and 2.
_ALLOWED = {
    ("_codecs", "encode"): _bytes,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read_cifar100(root: Path) -> tuple[Images, Images]:
    """Return the training and the test set, with the 100 fine labels.

    Args:
        root: the directory that holds `cifar-100-python`.

    Raises:
        DataError: the files are not there, are cut short, or are none of CIFAR-100.
    """
    train, test = (_read(root / FOLDER / part) for part in ("train", "test"))
    return train, test


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}, which is no array")
        return _ALLOWED[module, name]


def _read(path: Path) -> Images:
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        return _images(content)
    except Exception as error:  # a pickle that is none may fail in any way
        reason = "none" if isinstance(error, FileNotFoundError) else first_line(error)
        expected = "expected the files train and test of the Python version of CIFAR-100"
        hint = f"put them there, or set NNI_S3D_DATA to the directory that holds {FOLDER}"
        raise DataError(f"{path}: {expected}, got {reason}; {hint}") from error


def _images(content: Any) -> Images:
    pixels, labels = np.asarray(content["data"]), content["fine_labels"]
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != np.prod(_SHAPE):
        raise ValueError(f"an array of {pixels.dtype}, {pixels.shape}")
    if len(labels) != len(pixels) or not all(type(label) is int and 0 <= label < 100 for label in labels):
        raise ValueError(f"{len(labels)} labels of {len(pixels)} images, or such as are not from 0 to 99")
    return Images(torch.from_numpy(pixels.reshape(-1, *_SHAPE).copy()), torch.tensor(labels))
