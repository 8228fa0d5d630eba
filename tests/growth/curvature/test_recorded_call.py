"""Calls that are made again: in place or not, by position or by keyword."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_s3d.growth.curvature.recorded_call import RecordedCall, changed_in_place
from tests.cases import BY_NAME, check_operator, matrices_of, operator

IN_PLACE = {  # a function that changes x, the module that returns the same
    "torch.relu_": (torch.relu_, nn.ReLU()),
    "method": (lambda x: x.relu_(), nn.ReLU()),
    "by keyword": (lambda x: F.relu(input=x, inplace=True), nn.ReLU()),
    "by position": (lambda x: F.relu(x, True), nn.ReLU()),
    "relu6": (lambda x: F.relu6(x, True), nn.ReLU6()),
    "leaky_relu_": (lambda x: F.leaky_relu_(x, 0.4), nn.LeakyReLU(0.4)),
    "hardtanh_": (lambda x: F.hardtanh_(x, -2.0, 3.5), nn.Hardtanh(-2.0, 3.5)),
    "hardsigmoid": (lambda x: F.hardsigmoid(x, True), nn.Hardsigmoid()),
    "hardswish": (lambda x: F.hardswish(x, True), nn.Hardswish()),
    "rrelu": (lambda x: F.rrelu(x, 0.1, 0.5, False, True), nn.RReLU(0.1, 0.5)),
    "threshold": (lambda x: F.threshold(x, 0.1, -2.3, True), nn.Threshold(0.1, -2.3)),
    "silu": (lambda x: F.silu(x, inplace=True), nn.SiLU()),
    "tanh_": (lambda x: x.tanh_(), nn.Tanh()),
}


class Written(nn.Module):
    """What was written into the hidden tensor goes on, not what the function returned."""

    def __init__(self, change, *layers: nn.Module) -> None:
        super().__init__()
        self.change, self.layers = change, nn.ModuleList(layers)

    def forward(self, x):
        hidden = self.layers[0](x)
        self.change(hidden)
        return self.layers[1](hidden)


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_activations(name):
    torch.manual_seed(0)
    change, module = IN_PLACE[name]
    layers = nn.Linear(3, 5), nn.Linear(5, 4)
    model = Written(change, *layers).double().eval()
    twin = nn.Sequential(layers[0], module, layers[1]).eval()
    batch = 4 * torch.randn(40, 3, dtype=torch.float64), torch.randint(4, (40,))
    check_operator(twin, *batch)
    torch.testing.assert_close(matrices_of(model, batch), matrices_of(twin, batch), rtol=1e-12, atol=1e-16)
    with torch.no_grad():
        torch.testing.assert_close(model(batch[0]), twin(batch[0]))


def test_activations_called_with_keywords():
    class Keyword(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[2](F.leaky_relu(input=self[0](x), negative_slope=0.2, inplace=True))

    torch.manual_seed(0)
    case = BY_NAME["mlp-relu"]
    model = Keyword(nn.Linear(4, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3)).double()
    twin = nn.Sequential(*model)
    assert torch.equal(operator(case, model).dense("0"), operator(case, twin).dense("0"))
    assert operator(case, twin).dense("0").abs().max() > 1e-4


def recorded(func, name, *args, matters=lambda x: isinstance(x, torch.Tensor) and x.dim() > 1, **kwargs):
    return RecordedCall(func, name, args, kwargs, beta=3.0, matters=matters)


def test_a_call_takes_other_tensors():
    x, y = torch.ones(2, 3), torch.full((2, 3), 2.0)
    call = recorded(torch.add, "add", x, torch.ones(3), alpha=4)
    assert [t is x for t in call.tensors] == [True]
    assert call.leads
    assert call.arguments == 3
    assert [c.shape for c in call.constants] == [(3,)]
    torch.testing.assert_close(call(y), y + 4)
    call.forget()
    assert call.tensors == []


def test_a_call_changes_nothing_in_place():
    x = torch.ones(2, 3)
    call = recorded(torch.Tensor.tanh_, "tanh", x)
    assert call.target is x
    call(x)
    assert torch.equal(x, torch.ones(2, 3))


def test_a_layer_without_its_bias():
    x, weight, bias = torch.randn(2, 3), torch.randn(4, 3), torch.randn(4)
    call = recorded(F.linear, "linear", x, weight, bias=bias, matters=lambda t: t is x)
    torch.testing.assert_close(call.without_bias(x), x @ weight.T)
    torch.testing.assert_close(call(x), x @ weight.T + bias)


def test_batch_norm_is_an_affine_function():
    norm, x = nn.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 4)
    (
        norm.running_mean.uniform_(),
        norm.running_var.uniform_(0.5, 2),
        norm.weight.data.uniform_(),
        norm.bias.data.uniform_(),
    )
    args = norm.running_mean, norm.running_var, norm.weight, norm.bias
    call = recorded(F.batch_norm, "batch_norm", x, *args, matters=lambda t: t is x)
    torch.testing.assert_close(call(x), norm(x))


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "changes"),
    [
        (torch.relu_, (torch.ones(2),), {}, True),
        (torch.relu, (torch.ones(2),), {}, False),
        (torch.Tensor.__iadd__, (torch.ones(2), 1), {}, True),
        (torch.Tensor.__add__, (torch.ones(2), 1), {}, False),
        (F.relu, (torch.ones(2), True), {}, True),
        (F.relu, (torch.ones(2), False), {}, False),
        (F.relu, (), {"input": torch.ones(2), "inplace": True}, True),
        (F.dropout, (torch.ones(2), 0.5, True), {}, False),
    ],
)
def test_what_a_call_changes_in_place(func, args, kwargs, changes):
    first = args[0] if args else kwargs["input"]
    assert changed_in_place(func, args, kwargs) is (first if changes else None)


@pytest.mark.parametrize(
    ("other", "keeps"), [(torch.ones(3), True), (torch.ones(1, 1), True), (torch.ones(4, 2, 3), False), (2.0, True)]
)
def test_whether_the_shape_is_kept(other, keeps):
    x = torch.ones(2, 3)
    assert recorded(torch.mul, "mul", x, other, matters=lambda t: t is x).keeps_shape() == keeps


def test_attention_can_be_differentiated_twice():
    x, key = torch.randn(2, 4, 8, requires_grad=True), torch.randn(2, 4, 8)
    attention = torch.nn.functional.scaled_dot_product_attention
    call = RecordedCall(attention, attention.__name__, (x, key, key), {}, beta=3.0, matters=lambda y: y is x)
    (slope,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
    assert torch.autograd.grad(slope.square().sum(), x)[0].abs().max() > 0


def test_a_constant_that_is_overwritten_is_kept():
    sums, more = torch.zeros(3), torch.ones(2)
    call = RecordedCall(
        torch.Tensor.index_add_,
        "index_add",
        (sums, 0, torch.tensor([0, 2]), more),
        {},
        beta=3.0,
        matters=lambda x: x is more,
    )
    sums.fill_(7)
    assert call(more).tolist() == [1, 0, 1]


@pytest.mark.parametrize("name, given", [("view", (3, 4)), ("view_as", torch.zeros(3, 4))])
def test_a_view_is_taken_of_tensors_that_lie_otherwise_in_memory(name, given):
    x = torch.zeros(2, 6)
    arguments = (x, *given) if isinstance(given, tuple) else (x, given)
    view = RecordedCall(getattr(torch.Tensor, name), name, arguments, {}, beta=1.0, matters=lambda t: t is x)
    transposed = torch.arange(12.0).reshape(6, 2).T
    assert torch.equal(view(transposed), transposed.reshape(3, 4))
