import os
import pickle

import pytest
import torch

from nni_s3d.errors import StoreError
from nni_s3d.store import Store, store_url


@pytest.fixture(params=["path", "url"])
def store(request, tmp_path):
    return Store(str(tmp_path / "s") if request.param == "path" else f"memory://{tmp_path.name}")


def test_what_is_written_is_read(store):
    assert store.read_json("a/b.json") is None
    assert store.read_tensors("t") is None
    assert store.read_state("c.pt") is None
    store.write_json("a/b.json", {"x": [1, 2.5, None]})
    store.write_tensors("t", {"w": torch.arange(3), "e": torch.zeros(0, 2), "s": torch.tensor(2)})
    store.write_state("c.pt", {"epoch": 3, "model": {"w": torch.ones(2)}})
    assert store.read_json("a/b.json") == {"x": [1, 2.5, None]}
    assert {name: t.tolist() for name, t in store.read_tensors("t").items()} == {"w": [0, 1, 2], "e": [], "s": 2}
    assert store.read_state("c.pt")["model"]["w"].tolist() == [1, 1]
    store.write_json("a/b.json", 1)
    assert store.read_json("a/b.json") == 1
    store.remove("a/b.json")
    store.remove("a/b.json")
    assert not store.exists("a/b.json")


def test_no_temporary_file_is_left(tmp_path):
    store = Store(str(tmp_path))
    store.write_json("a/b.json", 1)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_store_of_another_task_is_refused_and_untouched(store):
    store.claim({"seed": 0, "data": {"name": "x"}})
    store.claim({"seed": 0, "data": {"name": "x"}})
    with pytest.raises(StoreError, match=r"task\.json: expected the same settings, got other ones for data"):
        store.claim({"seed": 0, "data": {"name": "y"}})
    assert store.read_json("task.json") == {"seed": 0, "data": {"name": "x"}}


def test_agreeing_is_all_or_nothing(store):
    store.write_json("b.json", {"c": 1})
    with pytest.raises(StoreError, match="c"):
        store.agree({"a.json": {"c": 1}, "b.json": {"c": 2}})
    assert not store.exists("a.json")


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
        (store.read_state, "c.pt"),
        (store.read_state, "d.pt"),
        (store.read_tensors, "t"),
        (store.read_json, "j.json"),
    ):
        with pytest.raises(StoreError, match="expected a file that this package wrote"):
            read(path)
    assert not (tmp_path / "trapped").exists()


def test_where_an_experiment_keeps_its_artefacts(tmp_path, monkeypatch):
    monkeypatch.delenv("NNI_S3D_STORE", raising=False)
    assert store_url(tmp_path) == str(tmp_path / "store")
    with pytest.raises(StoreError, match="NNI_S3D_STORE: expected a path or URL"):
        store_url(None)
    monkeypatch.setenv("NNI_S3D_STORE", "memory://x")
    assert store_url(None) == "memory://x"
