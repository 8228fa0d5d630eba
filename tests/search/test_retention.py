import shutil

import pytest

from nni_s3d.search import work
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.retention import PRUNED, prune, remove_tensors
from nni_s3d.search.store import Store
from nni_s3d.search.stored import stored_networks
from tests import small_task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment of two growth steps: its folder, what it yielded, and the keys of its networks."""
    folder = tmp_path_factory.mktemp("finished")
    store = Store(str(folder / "s"))
    steps = list(run(read_experiment(small_task.write(folder, steps=2)), store))
    return folder, steps, [store.read_json(outcome_path(p["lineage"], p["step"]))["key"] for p, _ in steps]


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    return Store(str(tmp_path / "copy" / "s")), tmp_path / "copy" / "s3d.yml", *finished[1:]


def with_weights(store, keys):
    return [number for number, key in enumerate(keys) if store.exists(f"{key}/weights.safetensors")]


def test_the_newest_is_kept_and_the_numbers_of_all(copy, monkeypatch):
    store, path, steps, keys = copy
    assert prune(store, "newest") > 0
    assert with_weights(store, keys) == [2]
    assert not any(name.endswith(".safetensors") for key in keys[:2] for name in store.files(key))
    assert [network.metrics for network in stored_networks(store)] == [metrics for _, metrics in steps]
    assert prune(store, "newest") == 0
    monkeypatch.setattr(work, "train", lambda *_: pytest.fail("trained again"))
    assert list(run(read_experiment(path), store)) == steps


def test_the_front_is_kept(copy):
    store, _, steps, keys = copy
    best, on_front = 0.0, []
    for number, (_, metrics) in enumerate(steps):  # each costs more than those before it
        if metrics["default"] > best:
            on_front.append(number)
        best = max(best, metrics["default"])
    prune(store, "front", "params")
    assert with_weights(store, keys) == sorted({*on_front, 2})


def test_all_are_kept_but_for_what_killed_programs_left(copy):
    store, _, _, keys = copy
    prune(store, "all")
    before = {key: store.files(key) for key in keys}
    (store_path := copy[1].parent / "s").joinpath(keys[0], "checkpoint.pt").write_bytes(b"")
    fresh = store_path / "lineages" / "x.json.0.tmp"
    fresh.write_bytes(b"")
    assert prune(store, "all") == 1  # what may be written at this moment stays
    assert {key: store.files(key) for key in keys} == before
    assert fresh.exists()


@pytest.mark.parametrize("keep", ["newest", "front"])
def test_a_lineage_that_keeps_less_ends_with_the_same_networks(copy, tmp_path, keep):
    _, _, steps, keys = copy
    store = Store(str(tmp_path / "s"))
    assert list(run(read_experiment(small_task.write(tmp_path, steps=2, keep=keep)), store)) == steps
    kept = with_weights(store, keys)
    assert kept == [2] if keep == "newest" else 2 in kept


def test_a_pruned_network_is_made_again_where_it_is_needed(copy, caplog):
    store, path, steps, keys = copy
    before = store.read_bytes(f"{keys[1]}/weights.safetensors")
    last = store.read_bytes(f"{keys[2]}/weights.safetensors")
    prune(store, "newest")
    store.remove(f"{keys[2]}/weights.safetensors")
    assert list(run(read_experiment(path), store)) == steps
    assert store.read_bytes(f"{keys[1]}/weights.safetensors") == before
    assert store.read_bytes(f"{keys[2]}/weights.safetensors") == last
    assert not store.exists(f"{keys[1]}/{PRUNED}")
    assert "step 1 of lineage c1.3-m2-s0 is looked at again: its network is needed" in caplog.text


def test_removing_twice_is_removing_once(copy):
    store, _, _, keys = copy
    assert remove_tensors(store, keys[0]) == 3  # weights, plan, spectra
    note = store.read_json(f"{keys[0]}/{PRUNED}")
    assert remove_tensors(store, keys[0]) == 0
    assert store.read_json(f"{keys[0]}/{PRUNED}") == note


def test_a_network_that_is_gone_cannot_be_pruned_and_ends_nothing(copy, tmp_path):
    store, _, steps, keys = copy
    assert remove_tensors(store, "0123456789abcdef") == 0
    shutil.rmtree(f"{store.url}/{keys[0]}")
    again = read_experiment(small_task.write(tmp_path, steps=2, keep="newest"))
    assert list(run(again, store)) == steps
