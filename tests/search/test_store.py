import os
import pickle

import pytest
import torch

from nni_s3d.errors import StoreError
from nni_s3d.search.store import Store, store_url
from nni_s3d.search.tensor_files import read_checkpoint, read_tensors, write_checkpoint, write_tensors


@pytest.fixture(params=["path", "url"])
def store(request, tmp_path):
    return Store(str(tmp_path / "s") if request.param == "path" else f"memory://{tmp_path.name}")


def test_what_is_written_is_read(store):
    assert store.read_json("a/b.json") is None
    assert read_tensors(store, "t") is None
    assert read_checkpoint(store, "c.pt") is None
    store.write_json("a/b.json", {"x": [1, 2.5, None]})
    tied = torch.rand(3)
    write_tensors(store, "tied", {"a": tied, "b": tied, "c": tied[:2]})
    assert {name: x.tolist() for name, x in read_tensors(store, "tied").items()} == {
        "a": tied.tolist(),
        "b": tied.tolist(),
        "c": tied[:2].tolist(),
    }
    write_tensors(store, "t", {"w": torch.arange(3), "e": torch.zeros(0, 2), "s": torch.tensor(2)})
    write_checkpoint(store, "c.pt", {"epoch": 3, "model": {"w": torch.ones(2)}})
    assert store.read_json("a/b.json") == {"x": [1, 2.5, None]}
    assert {name: t.tolist() for name, t in read_tensors(store, "t").items()} == {"w": [0, 1, 2], "e": [], "s": 2}
    assert read_checkpoint(store, "c.pt")["model"]["w"].tolist() == [1, 1]
    store.write_json("a/b.json", {"y": 1})
    assert store.read_json("a/b.json", "y") == {"y": 1}
    store.remove("a/b.json")
    store.remove("a/b.json")
    assert not store.exists("a/b.json")


def test_no_temporary_file_is_left(tmp_path):
    store = Store(str(tmp_path))
    store.write_json("a/b.json", {})
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_store_of_another_task_is_refused_and_untouched(store):
    store.claim({"seed": 0, "data": {"name": "x"}})
    store.claim({"seed": 0, "data": {"name": "x"}})
    with pytest.raises(StoreError, match=r"task\.json: expected the same settings, got other ones for data"):
        store.claim({"seed": 0, "data": {"name": "y"}})
    with pytest.raises(StoreError, match="got other ones for extra"):
        store.claim({"seed": 0, "data": {"name": "x"}, "extra": None})
    assert store.read_json("task.json") == {"seed": 0, "data": {"name": "x"}}


def test_agreeing_is_all_or_nothing(store):
    store.write_json("b.json", {"c": 1})
    with pytest.raises(StoreError, match="c"):
        store.agree({"a.json": {"c": 1}, "b.json": {"c": 2}})
    assert not store.exists("a.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "expected a mapping with key, next, got None"),
        ("[1]", r"expected a mapping with key, next, got \[1\]"),
        ("3", "expected a mapping with key, next, got 3"),
        ('"key"', "expected a mapping with key, next, got key"),
        ('{"key": 1}', "expected a mapping with key, next, got {'key': 1}"),
        ("{", r"expected a file that this package wrote, got one that cannot be read \(JSONDecodeError\)"),
    ],
)
def test_json_of_another_form_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StoreError, match=rf"a\.json: {message}"):
        Store(str(tmp_path)).read_json("a.json", "key", "next")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_no_numbers_are_refused(store, value):
    write_tensors(store, "t", {"good": torch.arange(2), "bad": torch.tensor([1.0, value])})
    with pytest.raises(StoreError, match="t: expected finite numbers, got others in bad"):
        read_tensors(store, "t")


def test_a_directory_in_the_place_of_a_file_is_refused_and_untouched(tmp_path):
    (tmp_path / "a.json").mkdir()
    store = Store(str(tmp_path))
    for access in (store.read_json, lambda path: store.write_json(path, {})):
        with pytest.raises(StoreError, match=r"a\.json: expected a place to read and write, got IsADirectoryError"):
            access("a.json")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.json"]


@pytest.mark.parametrize("url", ["foo://bar", "zip://none.zip"])
def test_a_place_that_fsspec_cannot_open_is_named(url):
    with pytest.raises(StoreError, match=f"^{url}: expected a place to read and write, got"):
        Store(url)


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


def test_where_an_experiment_keeps_its_artefacts(tmp_path, monkeypatch):
    monkeypatch.delenv("NNI_S3D_STORE", raising=False)
    assert store_url(tmp_path) == str(tmp_path / "store")
    with pytest.raises(StoreError, match="NNI_S3D_STORE: expected a path or URL"):
        store_url(None)
    monkeypatch.setenv("NNI_S3D_STORE", "memory://x")
    assert store_url(None) == "memory://x"
