"""ModelNet40 from its usual files, modelnet40_ply_hdf5_2048: clouds of points on the surfaces of 40 kinds of things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nni_s3d.errors import ConfigError, DataError, first_line
from nni_s3d.tasks.data.clouds import Clouds

FOLDER = "modelnet40_ply_hdf5_2048"


def read_modelnet40(root: Path, points: int) -> tuple[Clouds, Clouds]:
    """Return the training and the test set.

    Args:
        root: directory that holds the folder with ply_data_train*.h5 and ply_data_test*.h5. Each file has `data`
            (n, points, 3) and `label` (n, 1). Where the lists train_files.txt and test_files.txt are beside them, all
            files that they name must be there.
        points: how many of each cloud's points to take, from the first one on.

    Raises:
        ConfigError: the clouds have fewer points.
        DataError: the package h5py or the files are missing, or the files have other contents.
    """
    return _read(root / FOLDER, "train", points), _read(root / FOLDER, "test", points)


def _read(folder: Path, part: str, points: int) -> Clouds:
    parts = [_read_file(path, points) for path in _paths(folder, part)]
    return Clouds(torch.cat([part.points for part in parts]), torch.cat([part.labels for part in parts]))


def _paths(folder: Path, part: str) -> list[Path]:
    """Return the files of one half."""
    listed = folder / f"{part}_files.txt"
    names = listed.read_text(errors="replace").splitlines() if listed.is_file() else []
    paths = sorted({folder / Path(name).name for name in names if name.strip()})
    for path in paths:
        if not path.is_file():
            raise DataError(f"{listed}: expected all files that it names beside it, got no {path.name}")
    paths = paths or sorted(folder.glob(f"ply_data_{part}*.h5"))
    if not paths:
        raise DataError(
            f"{folder}: expected ply_data_{part}*.h5 of ModelNet40, got none; "
            f"put them there, or set NNI_S3D_DATA to the directory that holds {FOLDER}"
        )
    return paths


def _read_file(path: Path, points: int) -> Clouds:
    content = _arrays(path)
    data, label = content.get("data"), content.get("label")
    if data is None or label is None:
        raise DataError(f"{path}: expected the keys data and label, got {', '.join(content) or 'none'}")
    if data.ndim != 3 or data.shape[2] != 3 or data.dtype.kind != "f" or not np.isfinite(data).all():
        raise DataError(f"{path}: expected finite numbers (n, points, 3) in data, got {data.dtype} {data.shape}")
    if label.shape not in ((len(data),), (len(data), 1)) or label.dtype.kind not in "iu" or (label < 0).any():
        expected = f"whole numbers >= 0 of shape ({len(data)}, 1)"
        raise DataError(f"{path}: expected {expected} in label, got {label.dtype} {label.shape}")
    if data.shape[1] < points:
        raise ConfigError(f"points: expected at most {data.shape[1]}, as many as in {path}, got {points}")
    coordinates = torch.from_numpy(data[:, :points].astype(np.float32)).transpose(1, 2).contiguous()
    return Clouds(coordinates, torch.from_numpy(label.reshape(-1).astype(np.int64)))


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return everything in an HDF5 file."""
    try:
        import h5py
    except ImportError as error:
        raise DataError('modelnet40: expected the package h5py; pip install "nni_s3d[clouds]"') from error
    try:
        with h5py.File(path) as file:
            return {name: np.asarray(file[name]) for name in file}
    except (OSError, TypeError, ValueError) as error:  # what it says of files that are cut short or something else
        raise DataError(f"{path}: expected a whole HDF5 file, got {first_line(error)}") from error
