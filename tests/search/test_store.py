import pytest

from nni_s3d.errors import StoreError
from nni_s3d.search.store import Store, store_url


def test_what_is_written_is_read(store):
    assert store.read_json("a/b.json") is None
    assert store.read_bytes("a/b") is None
    store.write_json("a/b.json", {"x": [1, 2.5, None]})
    assert store.read_json("a/b.json") == {"x": [1, 2.5, None]}
    store.write_json("a/b.json", {"y": 1})
    assert store.read_json("a/b.json", "y") == {"y": 1}
    store.write_bytes("a/b", b"\x00")
    assert store.read_bytes("a/b") == b"\x00"


def test_what_is_removed_is_gone(store):
    store.write_json("a/b.json", {})
    assert store.exists("a/b.json")
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


def test_where_an_experiment_keeps_its_artefacts(tmp_path, monkeypatch):
    monkeypatch.delenv("NNI_S3D_STORE", raising=False)
    assert store_url(tmp_path) == str(tmp_path / "store")
    with pytest.raises(StoreError, match="NNI_S3D_STORE: expected a path or URL"):
        store_url(None)
    monkeypatch.setenv("NNI_S3D_STORE", "memory://x")
    assert store_url(None) == "memory://x"
