import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.cases import BY_NAME, all_cases, measured
from tests.wide import check_refused, check_rest_grows, check_split, linears, sample

EXPECTED = {  # name, width, producers, followers, consumers of every splittable group
    "mlp-tanh": [("0", 5, "0", "", "2"), ("2", 4, "2", "", "4")],
    "mlp-one-neuron": [("0", 1, "0", "", "2"), ("2", 1, "2", "", "4")],
    "conv-bn-silu": [("0", 4, "0", "1", "3"), ("3", 3, "3", "4", "8")],
    "separable-relu6": [("0", 3, "0", "1 3 4", "6"), ("6", 4, "6", "7 9 10", "12"), ("12", 3, "12", "", "16")],
    "pool-flatten-gelu": [("0", 3, "0", "", "4"), ("4", 5, "4", "", "7")],
    "residual-relu": [
        ("stem", 4, "stem inner expand", "norm", "inner reduce head"),
        ("reduce", 3, "reduce", "reduce_norm", "expand"),
    ],
    "softmax-between": [("0", 5, "0", "", "2"), ("4", 3, "4", "", "6")],
    "one-gate": [("main", 4, "main", "", "head"), ("hidden", 3, "hidden", "", "gate")],
    "gated-tanh": [("conv", 3, "conv excite", "", "squeeze read"), ("squeeze", 2, "squeeze", "", "excite")],
    "functional-relu": [(f"layers.{i}", w, f"layers.{i}", "", f"layers.{i + 1}") for i, w in enumerate((5, 3, 4))],
    "prelu": [("conv", 3, "conv", "each", "hidden"), ("hidden", 4, "hidden", "", "head")],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_groups(name):
    graph = measured(BY_NAME[name]).graph
    found = [
        (g.name, g.width, *(" ".join(map(str, layers)) for layers in (g.producers, g.followers, g.consumers)))
        for g in graph.splittable_groups
    ]
    assert found == EXPECTED[name]
    assert graph.widths == {name: width for name, width, *_ in EXPECTED[name]}


@all_cases
def test_the_last_layer_is_refused_as_an_output(case):
    last = [group for group in measured(case).graph if not group.splittable][-1]
    assert last.reason == "it is an output of the network"
    assert last.width == case.classes


@all_cases
def test_channels_are_numbered_group_by_group(case):
    graph = measured(case).graph
    channels = torch.arange(graph.num_channels)
    assert torch.cat([channels[group.channels] for group in graph]).tolist() == channels.tolist()
    for axis in graph.axes():
        assert axis.slots.min() >= -1
        assert axis.slots.max() < graph.num_channels
        tensor = dict((*measured(case).model.named_parameters(), *measured(case).model.named_buffers()))[axis.tensor]
        assert axis.slots.numel() == tensor.shape[axis.dim]


def test_the_root_module_may_own_several_weights():
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(sample(3, 4)), nn.Parameter(sample(2, 3))
            self.third = nn.Parameter(sample(1, 2))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.linear(F.linear(x, self.first).tanh(), self.second).tanh(), self.third)

    graph = s3d.trace(Raw(), sample(5, 4))
    assert graph.widths == {"first": 3, "second": 2}
    check_split(Raw(), sample(5, 4), graph)


REFUSED = {
    "nothing reads it": (
        lambda m, x: m.b(x) + 0 * _dropped(m.a(x)),
        linears((4, 3), (4, 2)),
        (5, 4),
        "nothing reads it linearly",
    ),
}


def _dropped(_: Tensor) -> int:
    return 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])
