from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.modules import evaluation_mode, innermost, map_tensors, tensors
from tests.cases import BY_NAME


def test_evaluation_mode_restores_every_mode_after_an_error():
    model = BY_NAME["conv-bn-relu"].model()
    model[1].train()

    def fail() -> None:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model] == [index == 1 for index in range(len(model))]


@dataclass(frozen=True)
class Inputs:
    x: Tensor
    others: object = None


Pair = namedtuple("Pair", "x others")
X, MASK = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.ones(6)
CONTAINERS = {
    "tensor": X,
    "tuple": (X, [MASK]),
    "namedtuple": Pair(X, MASK),
    "OrderedDict": OrderedDict(x=X, others={"mask": MASK}),
    "UserDict": UserDict(x=X, others=UserDict(mask=MASK)),
    "read-only mapping": MappingProxyType({"x": X, "others": 3}),
    "dataclass": Inputs(X, UserDict(mask=MASK)),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_tensors_in_containers_are_found_and_exchanged(kind):
    tree = CONTAINERS[kind]
    assert tensors(tree)[0] is X
    doubled = map_tensors(Tensor.double, tree)
    assert [x.dtype for x in tensors(doubled)] == [torch.float64] * len(tensors(tree))
    assert tensors(tree)[0].dtype == torch.float32
    if kind != "read-only mapping":
        assert type(doubled) is type(tree)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x, others=None):
        x = getattr(x, "x", x)
        return {"logits": self.b(torch.tanh(self.a(x)))}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_networks_grow_whatever_their_inputs_come_in(kind):
    inputs = CONTAINERS[kind]
    torch.manual_seed(0)
    model = Reader()
    graph = s3d.trace(model, inputs)
    batch = inputs, torch.tensor([0, 1, 0, 1, 0, 1])
    op = s3d.SplittingOperator(model, graph, [batch], lambda out, y: nn.functional.cross_entropy(out["logits"], y))
    plan = s3d.select(s3d.spectrum(op), graph, s3d.TopK(2))
    grown = s3d.split(model.double(), graph, plan, epsilon=0).model
    x = X.double()
    torch.testing.assert_close(grown(x)["logits"], model(x)["logits"])


def test_the_innermost_module_that_fails_is_named():
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(RuntimeError) as caught:
        model(torch.ones(1, 4))
    assert innermost(model, caught.value) == "1.0"
