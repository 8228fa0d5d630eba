import pytest
import torch
from torch import nn

from nni_s3d.errors import ModelError
from nni_s3d.search.preflight import try_step
from nni_s3d.tasks.data import Images, Loader


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
            r"images \(1, 1, 2, 2\) of 3 classes, got ValueError: Expected more",
        ),
        (network(nn.Linear(6, 5)), 8, r"images \(4, 1, 2, 2\) of 3 classes, got RuntimeError: mat1 and mat2"),
        (network(Failing(KeyError("x"))), 3, r"images \(3, 1, 2, 2\) of 3 classes, got KeyError: 'x'"),
        (network().requires_grad_(False), 8, "got RuntimeError: element 0 of tensors does not require grad"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 8, r"got an output of shape \(4, 2\)"),
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
