import json

import pytest
import torch
from torch import nn

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.search.experiment import check, read_experiment
from nni_s3d.search.lineage import Lineage
from nni_s3d.search.preflight import check_network, try_step
from nni_s3d.tasks.data import Images, Loader
from nni_s3d.tasks.task import read_task
from tests import small_task


def loader(n, batch_size=4):
    return Loader(Images(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.arange(n) % 3), (0.0,), (1.0,), batch_size)


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), *layers, nn.Linear(5, 3)).eval()


class Undefined(nn.Sequential):
    def forward(self, x):
        return (super().forward(x) - 100).log()


def test_a_network_that_trains_is_left_as_it_was():
    model = network(nn.BatchNorm1d(5), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = torch.rand(3, generator=torch.manual_seed(1))
    torch.manual_seed(1)
    try_step(model, loader(10), 3)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    ("model", "samples", "message"),
    [
        (
            network(nn.BatchNorm1d(5)),
            9,
            r"inputs \(1, 1, 2, 2\) of 3 classes, got ValueError: Expected more",
        ),
        (network(nn.Linear(6, 5)), 8, r"inputs \(4, 1, 2, 2\) of 3 classes, got RuntimeError: mat1 and mat2"),
        (network(Failing(KeyError("x"))), 3, r"inputs \(3, 1, 2, 2\) of 3 classes, got KeyError: 'x'"),
        (network().requires_grad_(False), 8, "got RuntimeError: element 0 of tensors does not require grad"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 8, r"got an output of shape \(4, 2\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), 8, r"got an output of shape \(4, 4\)"),
        (nn.Conv2d(1, 3, 1), 8, r"got an output of shape \(4, 3, 2, 2\)"),
        (Undefined(nn.Flatten(), nn.Linear(4, 3)), 8, "got a loss of nan"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused(model, samples, message):
    with pytest.raises(ModelError, match=f"^model: expected a network that trains on .*{message}"):
        try_step(model, loader(samples), 3)


@pytest.mark.parametrize("error", [MemoryError("full"), torch.OutOfMemoryError("full")])
def test_a_machine_without_memory_is_not_the_networks_fault(error):
    with pytest.raises(type(error), match="full"):
        try_step(network(Failing(error)), loader(8), 3)


@pytest.fixture
def task(tmp_path):
    small_task.write(tmp_path)
    return read_task(tmp_path / "task.yml")


SEED = dict.fromkeys(small_task.NAMES, 3)


def test_the_channel_graph_of_a_network_that_can_grow_is_returned(task):
    model = task.build_model(SEED, 0)
    graph = check_network(task, task.load_data(), model, SEED, Lineage())
    assert graph.widths == SEED
    known = graph.refuse_others(["conv0"], "known before")
    assert check_network(task, task.load_data(), model, SEED, graph=known) is known


@pytest.mark.parametrize(
    ("widths", "lineage", "error", "message"),
    [
        (SEED | {"pw1": 4}, None, ModelError, "expected layers of the widths .*'pw1': 4.*, got 3 in pw1"),
        (SEED | {"pw9": 4}, Lineage(), ModelError, "expected pw9, .*, among its layers, which it does not have"),
        (SEED | {"classifier": 10}, Lineage(), ModelError, "among its layers, which cannot be split: it is an output"),
        (SEED, Lineage(max_params=1), ConfigError, "max_params: expected at least 313, what the network has, got 1"),
    ],
)
def test_a_network_that_cannot_grow_as_asked_is_refused(task, widths, lineage, error, message):
    with pytest.raises(error, match=message):
        check_network(task, task.load_data(), task.build_model(SEED, 0), widths, lineage)


def test_names_that_only_growth_needs_are_free_without_it(task):
    assert check_network(task, task.load_data(), task.build_model(SEED, 0), SEED | {"pw9": 4}).widths == SEED


def test_a_width_from_which_the_factory_makes_another_network_is_refused(tmp_path):
    """A depthwise convolution of one channel is an ordinary one, and would grow into one."""
    for low in (2, 1):
        path = small_task.write(tmp_path)
        space = {name: {"_type": "quniform", "_value": [low, 12, 1]} for name in small_task.NAMES}
        (tmp_path / "space.json").write_text(json.dumps(space))
        experiment = read_experiment(path)
        if low > 1:
            check(experiment)
            continue
        message = r"mobilenet_v1_small to make .* got dw1.weight of shape \(2, 1, 3, 3\) instead of \(1, 2, 3, 3\); a d"
        with pytest.raises(ModelError, match=message):
            check(experiment)
