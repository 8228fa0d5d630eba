import json

import pytest

from nni_s3d.errors import DamageError, StoreError
from nni_s3d.search.checksum import KEY, UNKNOWN
from nni_s3d.search.store import Store, store_url


def test_what_is_written_is_read(store):
    assert store.read_json("a/b.json") is None
    store.write_json("a/b.json", {"x": [1, 2.5, None]})
    assert store.read_json("a/b.json", "x") == {"x": [1, 2.5, None]}
    store.write_bytes("a/b", f"text {UNKNOWN}".encode())
    assert store.read_bytes("a/b").startswith(b"text sha256:")
    assert store.read_bytes("a/c") is None


def test_a_store_of_another_task_is_refused_and_untouched(store):
    store.claim({"seed": 0, "data": {"name": "x"}})
    store.claim({"seed": 0, "data": {"name": "x"}})
    with pytest.raises(StoreError, match=r"task\.json: expected the same settings, got other ones for data"):
        store.claim({"seed": 0, "data": {"name": "y"}})
    with pytest.raises(StoreError, match="got other ones for extra"):
        store.claim({"seed": 0, "data": {"name": "x"}, "extra": None})
    assert store.read_json("task.json") == {"seed": 0, "data": {"name": "x"}}


def test_damaged_settings_are_written_again(tmp_path, caplog):
    store = Store(str(tmp_path))
    store.claim({"seed": 0})
    file = tmp_path / "task.json"
    whole = file.read_bytes()
    for damaged in (whole.replace(b"0", b"1"), whole[:-9], whole.replace(b"checksum", b"bhecksum"), b""):
        file.write_bytes(damaged)
        with pytest.raises(DamageError, match=r"task\.json: expected a file as this package wrote it, got one "):
            store.read_json("task.json")
        store.claim({"seed": 0})
        assert store.read_json("task.json") == {"seed": 0}
    assert caplog.text.count("task.json: expected a file as this package wrote it, got one ") == 4


def test_a_store_of_an_older_version_is_refused_and_untouched(tmp_path):
    (tmp_path / "task.json").write_text(json.dumps({"seed": 0}))
    with pytest.raises(
        StoreError, match=r"a checksum, got one of another program or of an older version; use another store$"
    ):
        Store(str(tmp_path)).claim({"seed": 0})
    assert KEY not in json.loads((tmp_path / "task.json").read_text())


def test_where_an_experiment_keeps_its_artefacts(tmp_path, monkeypatch):
    monkeypatch.delenv("NNI_S3D_STORE", raising=False)
    assert store_url(tmp_path) == str(tmp_path / "store")
    with pytest.raises(StoreError, match="NNI_S3D_STORE: expected a path or URL"):
        store_url(None)
    monkeypatch.setenv("NNI_S3D_STORE", "memory://x")
    assert store_url(None) == "memory://x"
