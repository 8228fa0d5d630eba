import pytest

from nni_s3d.errors import StoreError
from nni_s3d.search.load_network import load_network, stored_task
from nni_s3d.search.store import Store
from nni_s3d.search.stored import stored_networks
from nni_s3d.search.trial import run
from nni_s3d.tasks.data import Loader
from nni_s3d.tasks.task import read_task
from nni_s3d.tasks.training import evaluate


def test_every_network_has_its_accuracy(grown):
    path, folder, trials = grown
    store, task = Store(str(folder)), read_task(path.parent / "task.yml")
    found = {network.parameters["step"]: network for network in stored_networks(store)}
    assert len(found) == len(trials) == 3
    data = task.load_data()
    for parameters, metrics in trials:
        network = found[parameters["step"]]
        assert (network.parameters, network.metrics) == (parameters, metrics)
        model = load_network(network, stored_task(store), data.shape)
        assert evaluate(model, Loader(data.validation, data.mean, data.std, 512)).accuracy == metrics["default"]


def test_the_task_of_a_store_is_the_one_it_was_claimed_by(grown):
    path, folder, _ = grown
    assert stored_task(Store(str(folder))).fingerprint == read_task(path.parent / "task.yml").fingerprint


def test_weights_of_another_network_are_refused(grown, tmp_path):
    task = read_task(grown[0].parent / "task.yml")
    store = Store(str(tmp_path / "s"))
    run(task.space().low, task, store)
    (network,) = stored_networks(store)
    other = network.widths | {"conv0": network.widths["conv0"] + 1}
    store.write_json(f"{network.key}/spec.json", other)
    (network,) = stored_networks(store)
    shape = task.load_data().shape
    with pytest.raises(StoreError, match=r"weights.safetensors: expected the weights of a network with widths"):
        load_network(network, task, shape)
    (tmp_path / "s" / network.key / "weights.safetensors").unlink()
    with pytest.raises(StoreError, match=r"weights.safetensors: expected the weights of a finished trial, found none"):
        load_network(network, task, shape)


def test_a_store_without_a_task_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"task.json: expected the task of a store, found none"):
        stored_task(Store(str(tmp_path)))
    Store(str(tmp_path)).write_json("task.json", {"data": {"name": "digits"}, "flavour": 1})
    with pytest.raises(StoreError, match=r"task.json: unknown key 'flavour'"):
        stored_task(Store(str(tmp_path)))
