import os
import pickle

import pytest
import torch

from nni_s3d.errors import StoreError
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_checkpoint, read_tensors, write_checkpoint, write_tensors


def test_tensors_that_are_written_are_read(store):
    assert read_tensors(store, "t") is None
    write_tensors(store, "t", {"w": torch.arange(3), "e": torch.zeros(0, 2), "s": torch.tensor(2)})
    assert {name: t.tolist() for name, t in read_tensors(store, "t").items()} == {"w": [0, 1, 2], "e": [], "s": 2}


def test_tensors_that_share_memory_are_written_for_every_name(store):
    tied = torch.rand(3)
    write_tensors(store, "tied", {"a": tied, "b": tied, "c": tied[:2]})
    assert {name: x.tolist() for name, x in read_tensors(store, "tied").items()} == {
        "a": tied.tolist(),
        "b": tied.tolist(),
        "c": tied[:2].tolist(),
    }


def test_a_checkpoint_that_is_written_is_read(store):
    assert read_checkpoint(store, "c.pt") is None
    write_checkpoint(store, "c.pt", {"epoch": 3, "model": {"w": torch.ones(2)}})
    assert read_checkpoint(store, "c.pt")["epoch"] == 3
    assert read_checkpoint(store, "c.pt")["model"]["w"].tolist() == [1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_no_numbers_are_refused(store, value):
    write_tensors(store, "t", {"good": torch.arange(2), "bad": torch.tensor([1.0, value])})
    with pytest.raises(StoreError, match="t: expected finite numbers, got infinity or NaN in bad"):
        read_tensors(store, "t")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_nothing_that_is_read_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(str(tmp_path))
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Trap()))
    torch.save(Trap(), tmp_path / "d.pt")
    (tmp_path / "t").write_bytes(b"nonsense")
    (tmp_path / "j.json").write_bytes(b"{")
    for read, path in (
        (lambda path: read_checkpoint(store, path), "c.pt"),
        (lambda path: read_checkpoint(store, path), "d.pt"),
        (lambda path: read_tensors(store, path), "t"),
        (store.read_json, "j.json"),
    ):
        with pytest.raises(StoreError, match=r"expected a file that this package wrote, got .* \(\w+\)$"):
            read(path)
    assert not (tmp_path / "trapped").exists()
