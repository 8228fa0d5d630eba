import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import nni_s3d as s3d
from nni_s3d.growth.graph.functions import canonical_name
from nni_s3d.growth.graph.script_calls import script_calls_announced
from tests.wide import Net, linears, sample

pytestmark = pytest.mark.filterwarnings("ignore")


@torch.jit.script
def mish(x: Tensor) -> Tensor:
    return x * torch.tanh(F.softplus(x))


traced = torch.jit.trace(lambda x: x.tanh() * 2, torch.ones(2, 2))


class Names(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(canonical_name(func))
        return func(*args, **(kwargs or {}))


def test_calls_are_announced_and_no_longer_than_that():
    module, x = torch.jit.script(nn.Linear(2, 2)), torch.ones(1, 2)
    with script_calls_announced(), Names() as names:
        out = mish(x), module(x)
    assert names.seen == ["torchscript", "torchscript"]
    assert torch.equal(out[0], mish(x))
    with Names() as names:
        mish(x)
    assert not names.seen


@pytest.mark.parametrize("kind", ["function", "module", "traced"])
def test_channels_that_enter_torchscript_are_refused_with_the_reason(kind):
    modules = linears((4, 3), (3, 2))
    scripted = {"module": torch.jit.script(nn.Tanh()), "function": mish, "traced": traced}[kind]
    model = Net(lambda m, x: m.b(scripted(m.a(x))), **modules).double()
    reason = s3d.trace(model, sample(5, 4))["a"].reason
    assert reason.startswith("its channels enter the TorchScript ")
    assert reason.endswith(", which the trace cannot see in the model; call its Python code")


def test_a_network_with_a_torchscript_module_grows_elsewhere_and_stays_as_it_was():
    scripted = torch.jit.script(nn.Linear(3, 3))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), scripted, nn.Linear(3, 2)).double()
    graph = s3d.trace(model, sample(5, 4))
    assert graph.widths == {"0": 5}
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.full((5,), 2)}), epsilon=0).model
    torch.testing.assert_close(grown(sample(5, 4)), model(sample(5, 4)))
