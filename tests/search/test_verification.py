import pytest

from nni_s3d.errors import StoreError
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from nni_s3d.search.verification import verify
from tests import small_task


def test_every_file_is_looked_at_and_the_damaged_one_named(tmp_path):
    store = Store(str(tmp_path / "s"))
    list(run(read_experiment(small_task.write(tmp_path, steps=1)), store))
    files = sorted(str(path.relative_to(tmp_path / "s")) for path in (tmp_path / "s").rglob("*") if path.is_file())
    (tmp_path / "s" / "x.json.0.tmp").write_bytes(b"")
    assert sorted(verify(store)) == [(path, "") for path in files]
    for path in files:
        whole = (tmp_path / "s" / path).read_bytes()
        (tmp_path / "s" / path).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        ((named, trouble),) = ((named, trouble) for named, trouble in verify(store) if trouble)
        assert named == path
        assert trouble.startswith(f"{tmp_path}/s/{path}: expected a file as this package wrote it, got one ")
        (tmp_path / "s" / path).write_bytes(whole)


def test_a_store_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreError, match="none: expected a place to read and write, got FileNotFoundError"):
        list(verify(Store(str(tmp_path / "none"))))
