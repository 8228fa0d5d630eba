"""Products with a weight, the calls of `linear` that stand for them, and networks in which they are layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import nni_s3d as s3d
from nni_s3d.growth.graph.functions import canonical_name
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.rewriting import as_linear, as_product
from tests.growth.graph.registered import Case, check_predicted_change, check_twin, check_unmoved_split, check_widths
from tests.wide import Net, sample

W, V, B, STACK = sample(4, 6), sample(4), sample(6), sample(3, 4, 6)
X, Y = sample(2, 5, 4), sample(2, 4, 5)
EQUAL = {
    "matmul": (torch.matmul, (X, W), {}),
    "an operator": (Tensor.__matmul__, (X, W), {}),
    "from the right": (Tensor.__rmatmul__, (W, X), {}),
    "mm": (torch.mm, (X[0], W), {}),
    "the weight first": (torch.matmul, (B.new_ones(6, 4), Y), {}),
    "a vector": (torch.matmul, (X, V), {}),
    "a vector first": (torch.matmul, (V, Y), {}),
    "mv": (torch.mv, (X[0], V), {}),
    "addmm": (torch.addmm, (B, X[0], W), {}),
    "einsum": (torch.einsum, ("bnd,do->bno", X, W), {}),
    "einsum in another order": (torch.einsum, ("do, bdn -> obn", W, Y), {}),
    "einsum with dots": (torch.einsum, ("...d,do->...o", X, W), {}),
    "einsum with dots behind": (torch.einsum, ("bd...,do->bo...", Y, W), {}),
    "einsum with a vector": (torch.einsum, ("bnd,d->bn", X, V), {}),
    "einsum with a list": (torch.einsum, ("bnd,do->bno", [X, W]), {}),
    "tensordot": (torch.tensordot, (X, W), {"dims": 1}),
    "tensordot over two named ones": (torch.tensordot, (Y, W), {"dims": ([1], [0])}),
}


def own() -> OwnTensors:
    return OwnTensors({"w": W, "v": V, "b": B, "stack": STACK})


class Names(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(canonical_name(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", EQUAL)
def test_the_same_by_linear(name):
    func, args, kwargs = EQUAL[name]
    tensors = OwnTensors({"w": W, "v": V, "b": B} | ({"first": args[0]} if name == "the weight first" else {}))
    linear = as_linear(canonical_name(func), args, kwargs, tensors)
    assert linear is not None
    with Names() as calls:
        out = linear()
    assert "linear" in calls.names
    assert canonical_name(func) not in calls.names
    torch.testing.assert_close(out, func(*args, **kwargs))


ELEMENTWISE = {
    "a gate": ("bnd,bd->bnd", X, X[:, 0]),
    "a scale": ("bnd, d -> bnd", X, V),
    "another order": ("bnd,bdn->dbn", X, Y),
    "outer": ("bnd,o->bndo", X, B),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_einsum_without_a_sum_is_a_product_of_elements(name):
    equation, first, second = ELEMENTWISE[name]
    product = as_product("einsum", (equation, first, second), {})
    assert product is not None
    torch.testing.assert_close(product(), torch.einsum(equation, first, second))


@pytest.mark.parametrize(
    "call",
    [
        ("matmul", (X, W), {}),
        ("einsum", ("bnd,do->bno", X, W), {}),  # a sum
        ("einsum", ("bnd,bnd", X, X), {}),  # without a result
        ("einsum", ("...d,d->...d", X, V), {}),
        ("einsum", ("dd,d->d", W[:, :4], V), {}),  # a diagonal
        ("einsum", ("bnd->dbn", X), {}),
    ],
)
def test_other_calls_are_no_product_of_elements(call):
    assert as_product(*call) is None


def test_channels_pass_an_einsum_without_a_sum():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.b = nn.Conv1d(3, 5, 1), nn.Linear(3, 5), nn.Conv1d(5, 2, 1)
            self.scale = nn.Parameter(torch.rand(5))

        def forward(self, x: Tensor) -> Tensor:
            gated = torch.einsum("bcn,bc->bcn", self.a(x), self.gate(x.mean(2)).sigmoid())
            return self.b(torch.einsum("bcn,c->bcn", gated, self.scale).tanh())

    torch.manual_seed(0)
    model, x = Gated().double(), sample(4, 3, 6)
    graph = s3d.trace(model, x)
    assert graph.widths == {"a": 5}
    plan = s3d.plan_from_copies(graph, {"a": torch.tensor([1, 2, 1, 3, 1])})
    torch.testing.assert_close(s3d.split(model, graph, plan, epsilon=0).model(x), model(x))


OTHERS = {
    "linear itself": (F.linear, (X, W.T), {}),
    "two activations": (torch.matmul, (X, Y), {}),
    "two weights": (torch.matmul, (W.new_ones(2, 4), W), {}),
    "stacks of other sizes": (torch.matmul, (X.new_ones(1, 5, 4), STACK), {}),
    "a vector of activations": (torch.matmul, (X[0, 0], W), {}),
    "twice the product": (torch.addmm, (B, X[0], W), {"alpha": 2}),
    "a matrix is added": (torch.addmm, (X.new_ones(5, 6), X[0], W), {}),
    "a diagonal": (torch.einsum, ("bnd,d->bnd", X, V), {}),
    "a sum beside": (torch.einsum, ("bnd,do->bo", X, W), {}),
    "no sum": (torch.einsum, ("bnd,fo->bndfo", X, W), {}),
    "three factors": (torch.einsum, ("bnd,do,o->bn", X, W, B), {}),
    "letters left out": (torch.einsum, ("bnd,do", X, W), {}),
    "numbers for letters": (torch.einsum, (X, [0, 1, 2], W, [2, 3], [0, 1, 3]), {}),
    "two sums": (torch.tensordot, (X.mT.new_ones(2, 4, 6), W), {"dims": 2}),
    "two named sums": (torch.tensordot, (X.new_ones(2, 4, 6), W), {"dims": ([1, 2], [0, 1])}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_product_with_one_weight_stays(name):
    func, args, kwargs = OTHERS[name]
    tensors = own()
    if name == "two weights":
        tensors = OwnTensors({"first": args[0], "w": W})
    assert as_linear(canonical_name(func), args, kwargs, tensors) is None


WAYS = {
    "x @ W": lambda x, weight: x @ weight,
    "x.matmul(W)": lambda x, weight: x.matmul(weight),
    "einsum": lambda x, weight: torch.einsum("nd,do->no", x, weight),
    "W.T @ x": lambda x, weight: (weight.T @ x.T).T,
    "tensordot": lambda x, weight: torch.tensordot(x, weight, dims=([1], [0])),
    "linear": lambda x, weight: F.linear(x, weight.transpose(0, 1)),
    "convolution": lambda x, weight: F.conv1d(x[..., None], weight.t().unsqueeze(-1))[..., 0],
}


def with_products(way: str) -> nn.Module:
    torch.manual_seed(1)
    weights = {"first": nn.Parameter(torch.randn(4, 5)), "second": nn.Parameter(torch.randn(5, 3))}
    product = WAYS[way]
    return Net(lambda m, x: product(torch.tanh(product(x, m.first)), m.second), **weights).double().eval()


def products(way: str) -> Case:
    return Case(lambda: with_products(way), (6, 4), {"first": 5})


every_way = pytest.mark.parametrize("way", WAYS)


@every_way
def test_a_product_is_a_layer(way):
    check_widths(products(way))


@every_way
def test_splits_that_do_not_move_change_nothing(way):
    check_unmoved_split(products(way))


@every_way
def test_the_loss_changes_as_predicted(way):
    check_predicted_change(products(way))


@every_way
def test_costs_and_matrices_are_those_of_linear_layers(way):
    twin = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    check_twin(products(way), twin, transposed=True)


class Conv1D(nn.Module):
    """As in GPT-2: a linear layer that stores its weight transposed and writes its width in a view."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) / 2), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return out.view(*x.shape[:-1], self.nf)


def test_gpt2_conv1d_is_a_linear_layer():
    def build() -> nn.Module:
        torch.manual_seed(2)
        return nn.Sequential(Conv1D(5, 4), nn.Tanh(), Conv1D(3, 5)).double()

    case = Case(build, (6, 4), {"0": 5})
    check_widths(case)
    check_unmoved_split(case)
    check_predicted_change(case)
    check_twin(case, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), transposed=True)
    graph = s3d.trace(build(), sample(6, 4))
    grown = s3d.split(build(), graph, s3d.plan_from_copies(graph, {"0": torch.full((5,), 2)})).model
    assert (grown[0].nf, grown[0].nx, grown[2].nf, grown[2].nx) == (10, 4, 3, 10)


def test_a_vector_of_weights_reads_channels():
    def build() -> nn.Module:
        torch.manual_seed(3)
        parameters = {"first": nn.Parameter(torch.randn(5, 4)), "context": nn.Parameter(torch.randn(5))}
        return Net(lambda m, x: (x @ m.first.T).tanh() @ m.context * torch.ones(2, 1).double(), **parameters).double()

    model = build()
    graph = s3d.trace(model, sample(6, 4))
    assert graph.widths == {"first": 5}
    assert [str(layer) for layer in graph["first"].consumers] == ["context"]


def test_a_matrix_over_positions_is_no_layer():
    parameters = {"a": nn.Linear(4, 3), "b": nn.Linear(3, 2), "mix": nn.Parameter(torch.rand(5, 5))}
    model = Net(lambda m, x: m.b((m.mix @ m.a(x)).tanh()), **parameters).double()
    graph = s3d.trace(model, sample(6, 5, 4))
    assert graph.widths == {"a": 3}
    assert "cannot grow, since no rule follows them: mix (matmul)" in str(graph)
