import io
import os
import pickle

import pytest
import torch

from nni_s3d.errors import DamageError, StoreError
from nni_s3d.search.checksum import UNKNOWN, with_checksum
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


@pytest.mark.parametrize("sealed", [True, False])
def test_nothing_that_is_read_runs_code(tmp_path, monkeypatch, sealed):
    """Not even what somebody has given the right checksum."""
    monkeypatch.chdir(tmp_path)
    store, archive = Store(str(tmp_path)), io.BytesIO()
    torch.save(Trap(), archive)
    contents = {
        "c.pt": pickle.dumps((Trap(), UNKNOWN)),
        "d.pt": archive.getvalue() + UNKNOWN.encode(),
        "t": pickle.dumps((Trap(), UNKNOWN)),
        "j.json": f"{{{UNKNOWN}".encode(),
    }
    for path, content in contents.items():
        (tmp_path / path).write_bytes(with_checksum(path, content) if sealed else content)
    expected = r"one that cannot be read \(\w+\)$" if sealed else "one that was changed, or written to another place"
    readers = [lambda path: read_checkpoint(store, path), lambda path: read_tensors(store, path), store.read_json]
    for read, paths in zip(readers, (["c.pt", "d.pt"], ["t"], ["j.json"]), strict=True):
        for path in paths:
            with pytest.raises(DamageError, match=f"expected a file .*, got {expected}"):
                read(path)
    assert not (tmp_path / "trapped").exists()
    pickle.loads(contents["c.pt"])  # what this test would find
    assert (tmp_path / "trapped").exists()
