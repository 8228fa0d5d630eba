import json

import pytest
import torch
import yaml
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, RandomOneShot
from torch import nn
from torch.utils.data import TensorDataset

from nni_s3d.errors import ModelError
from nni_s3d.plugin.supernet import Supernet
from nni_s3d.tasks.task import read_task
from tests import small_task

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:nni", "ignore::UserWarning")


class Flat(nn.Module):
    """A convolution whose every channel the next layer reads at 16 positions."""

    def __init__(self, first, second):
        super().__init__()
        self.first = nn.Conv2d(1, first, 3, stride=2, padding=1)
        self.second = nn.Linear(16 * first, second)
        self.last = nn.Linear(second, 10)

    def forward(self, x):
        x = torch.relu(self.first(x)).flatten(1)
        return self.last(torch.relu(self.second(x)))


class Joined(nn.Module):
    """Two layers that are read together."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b, self.last = nn.Linear(64, a), nn.Linear(64, b), nn.Linear(a + b, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.last(torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1))


class Grouped(nn.Module):
    """A kind of layer that NNI does not make narrower."""

    def __init__(self, a):
        super().__init__()
        self.a, self.norm, self.last = nn.Linear(64, a), nn.BatchNorm1d(a), nn.Linear(a, 10)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.a(x.flatten(1)))))


def flat(widths):
    return Flat(**widths)


class Plain(nn.Sequential):
    """A batch norm without parameters."""

    def __init__(self, a):
        convolution, norm = nn.Conv2d(1, a, 3), nn.BatchNorm2d(a, affine=False)
        super().__init__(convolution, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(a, 10))


def plain(widths):
    return Plain(widths["0"])


def joined(widths):
    return Joined(**widths)


def grouped(widths):
    return Grouped(**widths)


def write(folder, factory=None, names=small_task.NAMES):
    """Write a task, of the small MobileNet or of a network of this file, and return its path."""
    model = {} if factory is None else {"model": {"factory": f"{__name__}:{factory}"}}
    (folder / "space.json").write_text(json.dumps({name: {"_type": "quniform", "_value": [3, 9, 1]} for name in names}))
    (folder / "task.yml").write_text(yaml.safe_dump({**small_task.TASK, **model}))
    return str(folder / "task.yml")


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    ("factory", "names"), [(None, small_task.NAMES), ("flat", ("first", "second")), ("plain", ("0",))]
)
def test_a_part_of_the_supernet_is_the_network_of_its_widths(tmp_path, factory, names):
    path = write(tmp_path, factory, names)
    widths = {name: 3 + i for i, name in enumerate(names)}
    part = Supernet(path).freeze(widths).network
    assert shapes(part) == shapes(read_task(tmp_path / "task.yml").build_model(widths, 0))
    assert part(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("factory", "names", "message"),
    [
        ("joined", ("a", "b"), "last.weight: expected a layer that reads one group of channels in its order, got a, b"),
        ("plain", ("0", "2"), "model: expected 2, of the search space, among the layers that can be split"),
        ("grouped", ("a",), "norm: expected one of Conv2d, Linear, BatchNorm2d, which NNI .*, got BatchNorm1d"),
    ],
)
def test_what_nni_cannot_make_narrower_is_refused(tmp_path, factory, names, message):
    with pytest.raises(ModelError, match=message):
        Supernet(write(tmp_path, factory, names))


@pytest.mark.parametrize("strategy", [DARTS, GumbelDARTS, RandomOneShot])
def test_one_shot_strategies_choose_widths(tmp_path, strategy):
    samples = TensorDataset(torch.randn(20, 1, 8, 8), torch.randint(10, (20,)))
    loaders = {kind: DataLoader(samples, batch_size=10) for kind in ("train_dataloaders", "val_dataloaders")}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    evaluator = Classification(**loaders, num_classes=10, max_epochs=1, **quiet)
    space = RawFormatModelSpace.from_model(Supernet(write(tmp_path)), evaluator)
    search = strategy()
    search(space, SequentialExecutionEngine())
    (found,) = search.list_models(limit=1)
    assert found.sample.keys() == set(small_task.NAMES)
    assert all(3 <= width <= 9 for width in found.sample.values())
