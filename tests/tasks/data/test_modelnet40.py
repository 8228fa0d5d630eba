import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from nni_s3d.cli import main
from nni_s3d.errors import ConfigError, DataError
from nni_s3d.tasks.data import load
from nni_s3d.tasks.data.modelnet40 import FOLDER, read_modelnet40

h5py = pytest.importorskip("h5py")
CONFIGS = Path(__file__).parents[3] / "configs" / "modelnet40"
SHARED = Path(__file__).parents[4] / "shared" / "data"


def write(root: Path, name: str, **arrays: object) -> Path:
    """Write a file of the data set and return its path."""
    path = root / FOLDER / name
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return path


def some(n: int, first: int = 0) -> dict[str, np.ndarray]:
    """Return n clouds of 8 points, the labels of which are numbered."""
    data = np.random.default_rng(first).standard_normal((n, 8, 3)).astype(np.float16)
    return {"data": data, "label": np.arange(first, first + n, dtype=np.uint8)[:, None]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with two files for training and one for the test."""
    write(tmp_path, "ply_data_train1.h5", **some(3, 4))
    write(tmp_path, "ply_data_train0.h5", **some(4))
    write(tmp_path, "ply_data_test0.h5", **some(2))
    return tmp_path


def test_files_are_read_in_order_and_clouds_cut(root):
    train, test = read_modelnet40(root, 5)
    assert train.labels.tolist() == list(range(7))
    assert (train.shape, train.points.dtype, len(test)) == ((3, 5), torch.float32, 2)
    assert np.array_equal(train.points[4].numpy(), some(3, 4)["data"][0, :5].T)


def test_it_is_a_data_set_by_name(root, monkeypatch):
    monkeypatch.setenv("NNI_S3D_DATA", str(root))
    data = load("modelnet40", 0.3, points=6)
    assert (len(data.train), len(data.validation), len(data.test), data.num_classes) == (5, 2, 2, 7)
    assert (data.shape, data.mean, data.std) == ((3, 6), (), ())


def test_more_points_than_there_are(root):
    with pytest.raises(ConfigError, match=r"points: expected at most 8, as many as in .*train0\.h5, got 1024"):
        load("modelnet40", root=root)


def test_a_missing_folder_says_what_to_put_where(tmp_path):
    with pytest.raises(DataError, match=rf"{FOLDER}: expected ply_data_train\*\.h5 .* NNI_S3D_DATA .* {FOLDER}"):
        read_modelnet40(tmp_path, 8)


def test_a_missing_half(root):
    (root / FOLDER / "ply_data_test0.h5").unlink()
    with pytest.raises(DataError, match=r"expected ply_data_test\*\.h5 of ModelNet40, got none"):
        read_modelnet40(root, 8)


def test_a_file_that_the_list_names_is_missing(root):
    listed = root / FOLDER / "train_files.txt"
    listed.write_text("data/modelnet40/ply_data_train1.h5\ndata/modelnet40/ply_data_train0.h5\n")
    assert read_modelnet40(root, 8)[0].labels.tolist() == list(range(7))
    (root / FOLDER / "ply_data_train1.h5").unlink()
    with pytest.raises(DataError, match=r"train_files.txt: expected all files that it .*, got no ply_data_train1.h5"):
        read_modelnet40(root, 8)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_file_that_is_cut_short(root, size):
    path = write(root, "ply_data_train0.h5", **some(60))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"ply_data_train0\.h5: expected a whole HDF5 file, got ") as error:
        read_modelnet40(root, 8)
    assert "\n" not in str(error.value)


WRONG = {
    "other keys": ({"points": some(2)["data"]}, "expected the keys data and label, got points"),
    "no keys": ({}, "expected the keys data and label, got none"),
    "flat": ({"data": np.zeros((2, 24))}, r"expected finite numbers \(n, points, 3\) in data, got float64 \(2, 24\)"),
    "normals": ({"data": np.zeros((2, 8, 6))}, r"in data, got float64 \(2, 8, 6\)"),
    "whole numbers": ({"data": np.zeros((2, 8, 3), int)}, r"in data, got int64 \(2, 8, 3\)"),
    "not finite": ({"data": np.full((2, 8, 3), np.nan)}, "expected finite numbers"),
    "fewer labels": (
        {"label": np.zeros((1, 1), int)},
        r"whole numbers >= 0 of shape \(2, 1\) in label, got int64 \(1, 1\)",
    ),
    "fractions": ({"label": np.zeros((2, 1))}, r"in label, got float64 \(2, 1\)"),
    "below zero": ({"label": np.full((2, 1), -1)}, "expected whole numbers >= 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_with_other_contents_are_refused(root, name):
    arrays, message = WRONG[name]
    if name not in ("other keys", "no keys"):
        arrays = some(2) | arrays
    write(root, "ply_data_train0.h5", **arrays)
    with pytest.raises(DataError, match=rf"ply_data_train0\.h5: .*{message}"):
        read_modelnet40(root, 8)


def test_a_missing_package_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r'expected the package h5py; pip install "nni_s3d\[clouds\]"'):
        read_modelnet40(root, 8)


def test_modelnet40_from_its_files():
    if not (SHARED / FOLDER).is_dir():
        pytest.skip("no files of ModelNet40 beside the project")
    data = load("modelnet40", 0.1, root=SHARED)
    assert (data.shape, data.num_classes) == ((3, 1024), 40)
    assert (len(data.train), len(data.validation), len(data.test)) == (1800, 200, 520)
    assert float(data.train.points.norm(dim=1).max()) <= 1.001


def reduced(folder: Path, strategy: str) -> Path:
    """Write the files of an experiment with fewer samples, points, neighbours and epochs, and return its path."""
    experiment = yaml.safe_load((CONFIGS / f"{strategy}.yml").read_text())
    task = yaml.safe_load((CONFIGS / experiment["trialCommand"].split()[-1]).read_text())
    task["data"] |= {"samples": 160, "points": 48}
    task["model"] |= {"k": 4, "embedding": 32}
    task["training"] |= {"epochs": 1, "batch_size": 16}
    task["curvature"] = {"samples": 32, "batch_size": 16}
    task["search_space"] = experiment["searchSpaceFile"] = str(CONFIGS / experiment["searchSpaceFile"])
    experiment["tuner"]["classArgs"] |= {"steps": 2}
    experiment["tuner"]["classArgs"].pop("epochs", None)
    (folder / experiment["trialCommand"].split()[-1]).write_text(yaml.safe_dump(task))
    path = folder / f"{strategy}.yml"
    path.write_text(yaml.safe_dump(experiment))
    return path


@pytest.mark.parametrize("strategy", ["s3d", "s3d_paper"])
def test_edge_convolutions_grow_on_real_clouds(tmp_path, monkeypatch, capsys, strategy):
    if not (SHARED / FOLDER).is_dir():
        pytest.skip("no files of ModelNet40 beside the project")
    monkeypatch.setenv("NNI_S3D_DATA", str(SHARED))
    path = reduced(tmp_path, strategy)
    assert main(["check", str(path)]) == 0
    assert main(["grow", str(path), "--store", str(tmp_path / "store")]) == 0
    found = [yaml.safe_load(line) for line in re.findall(r"widths ({.*})", capsys.readouterr().out)]
    assert found[0] == {f"edge{i}": 16 for i in (1, 2, 3, 4)}
    totals = [sum(widths.values()) for widths in found]
    assert totals[0] < totals[1] < totals[2]
    if strategy == "s3d_paper":  # 40% of the filters of the edge convolutions at most
        assert totals[1] <= 64 + 25
