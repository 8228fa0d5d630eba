import io

import pytest
import torch
from safetensors.torch import load

from nni_s3d.errors import DamageError
from nni_s3d.search.checksum import UNKNOWN, trouble_with, with_checksum
from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_checkpoint, read_tensors, write_checkpoint, write_tensors

WRITE = {
    "a/x.json": lambda store, path: store.write_json(path, {"width": 3, "rate": 0.1}),
    "a/x.safetensors": lambda store, path: write_tensors(store, path, {"w": torch.arange(4.0)}),
    "a/x.pt": lambda store, path: write_checkpoint(store, path, {"epoch": 3, "w": torch.ones(2)}),
}
READ = {"json": Store.read_json, "safetensors": read_tensors, "pt": read_checkpoint}


def test_a_checksum_takes_the_place_that_was_left_for_it():
    content = f'{{"x": "{UNKNOWN}"}}'.encode()
    written = with_checksum("a", content)
    assert len(written) == len(content)
    assert trouble_with("a", written) == ""
    assert trouble_with("b", written) == "one that was changed, or written to another place"
    assert trouble_with("a", content) == "one that was changed, or written to another place"
    assert trouble_with("a", b"{}") == "one without a checksum: damaged, or of another program or version"
    with pytest.raises(ValueError, match="a: expected a place for a checksum"):
        with_checksum("a", b"{}")


@pytest.mark.parametrize("path", WRITE)
def test_every_flipped_bit_and_every_cut_is_found(tmp_path, path):
    store = Store(str(tmp_path))
    WRITE[path](store, path)
    whole = (tmp_path / path).read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        assert trouble_with(path, bytes(damaged))
        assert trouble_with(path, whole[:place])
    (tmp_path / path).write_bytes(whole[:-1])
    with pytest.raises(DamageError, match=rf"{path}: expected a file as this package wrote it, got one "):
        READ[path.rpartition(".")[2]](store, path)


@pytest.mark.parametrize("path", WRITE)
def test_a_file_from_the_place_of_another_one_is_found(tmp_path, path):
    store = Store(str(tmp_path))
    WRITE[path](store, path)
    (tmp_path / "b").mkdir()
    (tmp_path / path).rename(tmp_path / f"b{path[1:]}")
    with pytest.raises(DamageError, match="got one that was changed, or written to another place"):
        READ[path.rpartition(".")[2]](store, f"b{path[1:]}")


def test_other_programs_read_the_files(tmp_path):
    store = Store(str(tmp_path))
    for path, write in WRITE.items():
        write(store, path)
    assert load((tmp_path / "a/x.safetensors").read_bytes())["w"].tolist() == [0, 1, 2, 3]
    assert torch.load(io.BytesIO((tmp_path / "a/x.pt").read_bytes()), weights_only=True)["epoch"] == 3


def test_a_store_may_move(tmp_path):
    WRITE["a/x.json"](Store(str(tmp_path / "one")), "a/x.json")
    (tmp_path / "one").rename(tmp_path / "two")
    assert Store(str(tmp_path / "two")).read_json("a/x.json") == {"width": 3, "rate": 0.1}
