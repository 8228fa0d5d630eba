import pytest

from nni_s3d.errors import StoreError
from nni_s3d.search.store import Store
from nni_s3d.search.stored import stored_networks
from tests.fresh_process import loaded_by


def test_every_finished_step_is_a_network_in_its_order(grown):
    _, folder, trials = grown
    found = stored_networks(Store(str(folder)))
    assert [(network.parameters, network.metrics) for network in found] == trials
    assert found[0].widths == dict.fromkeys(found[0].widths, 3)


def test_what_is_no_network_is_left_out(tmp_path):
    store = Store(str(tmp_path / "s"))
    store.write_json("0123456789abcdef/spec.json", {"conv0": 3})  # a trial that has not finished
    store.write_json("notes/metrics.json", {})
    assert stored_networks(store) == []


def test_a_store_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreError, match="nowhere: expected a place to read and write, got FileNotFoundError"):
        stored_networks(Store(str(tmp_path / "nowhere")))


def test_readers_need_no_torch():
    assert "torch" not in loaded_by("import nni_s3d.search.stored, nni_s3d.search.notes")
