"""Products with stacks of weights, the calls of `linear` that stand for them, and networks in which they are layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.functions import canonical_name
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.stacked_products import StackedProduct, as_stacked
from tests.growth.graph.registered import Case, check_predicted_change, check_unmoved_split, check_widths
from tests.wide import Number, sample

STACK, B = sample(3, 4, 6), sample(3, 1, 6)
X, Y, ALONE, MANY = sample(3, 5, 4), sample(3, 4, 5), sample(5, 4), sample(2, 3, 5, 4)
EQUAL = {
    "bmm": (torch.bmm, (X, STACK)),
    "matmul": (torch.matmul, (X, STACK)),
    "matmul of samples": (torch.matmul, (MANY, STACK)),
    "matmul of what all read": (torch.matmul, (ALONE, STACK)),
    "from the right": (Tensor.__rmatmul__, (STACK, X)),
    "the stack first": (torch.matmul, (STACK, sample(3, 6, 5))),
    "the stack first, of samples": (torch.matmul, (STACK, sample(2, 3, 6, 5))),
    "the stack first, of what all read": (torch.matmul, (STACK, sample(6, 5))),
    "baddbmm": (torch.baddbmm, (B, X, STACK)),
    "einsum": (torch.einsum, ("etc,ecr->etr", X, STACK)),
    "einsum in another order": (torch.einsum, ("ecr, ect -> tre", STACK, Y)),
    "einsum over rows": (torch.einsum, ("etr,ecr->tec", sample(3, 5, 6), STACK)),
    "einsum of what all read": (torch.einsum, ("tc,ecr->ter", ALONE, STACK)),
    "einsum with dots": (torch.einsum, ("...etc,ecr->...etr", MANY, STACK)),
    "einsum of a list": (torch.einsum, ("btec,ecr->bter", [MANY.transpose(1, 2), STACK])),
}


@pytest.mark.parametrize("name", EQUAL)
def test_the_same_by_linear(name):
    func, args = EQUAL[name]
    product = as_stacked(canonical_name(func), args, OwnTensors({"stack": STACK}))
    assert isinstance(product, StackedProduct)
    torch.testing.assert_close(product(), func(*args))


OTHERS = {
    "another number of blocks": ("matmul", (X[:1], STACK)),
    "no weight of the model": ("bmm", (X, sample(3, 4, 6))),
    "one weight": ("matmul", (X, STACK[0])),
    "a diagonal": ("einsum", ("eec,ecr->er", sample(3, 3, 4), STACK)),
    "a sum over blocks": ("einsum", ("etc,ecr->tr", X, STACK)),
    "a sum over two letters": ("einsum", ("ecr,ecr->e", sample(3, 4, 6), STACK)),
    "no result": ("einsum", ("etc,ecr", X, STACK)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_products_stay(name):
    assert as_stacked(*OTHERS[name], OwnTensors({"stack": STACK})) is None


class Mixture(nn.Module):
    """Experts that see every row, weighed by a gate, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.before, self.gate, self.head = way, nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.up, self.bias, self.down = Number(3, 3, 6), Number(3, 1, 6), Number(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        gates = self.gate(x).softmax(-1)
        if self.way == "bmm":
            y = torch.bmm(F.silu(torch.bmm(x.expand(3, -1, -1), self.up) + self.bias), self.down)
            y = (y * gates.T[..., None]).sum(0)
        elif self.way == "matmul":
            y = F.silu(torch.baddbmm(self.bias, x.expand(3, -1, -1), self.up)) @ self.down
            y = (y * gates.T[..., None]).sum(0)
        elif self.way == "einsum":
            y = F.silu(torch.einsum("tc,ecr->ter", x, self.up) + self.bias.squeeze(1))
            y = torch.einsum("te,tec->tc", gates, torch.einsum("ter,erc->tec", y, self.down))
        else:
            weights = zip(self.up, self.bias, self.down.unbind(), strict=True)
            y = sum(gates[:, e, None] * (F.silu(x @ up + b) @ down) for e, (up, b, down) in enumerate(weights))
        return self.head(torch.tanh(y))


def mixture(way: str) -> Case:
    def build() -> nn.Module:
        torch.manual_seed(2)
        return Mixture(way).double()

    return Case(build, (6, 4), {"before": 3, "up": 18, "down": 3})


every_way = pytest.mark.parametrize("way", ["bmm", "matmul", "einsum", "loop"])


@every_way
def test_the_groups_are_found(way):
    check_widths(mixture(way))


@every_way
def test_splits_that_do_not_move_change_nothing(way):
    check_unmoved_split(mixture(way))


@every_way
def test_the_loss_changes_as_predicted(way):
    check_predicted_change(mixture(way))


@every_way
def test_all_ways_have_the_same_matrices_and_costs(way):
    results = []
    for model in (mixture(way).build(), mixture("loop").build()):
        batch = sample(6, 4), torch.tensor([0, 1] * 3)
        graph = s3d.trace(model, batch[0])
        op = s3d.SplittingOperator(model, graph, [batch], F.cross_entropy)
        results.append([op.dense(name) for name in graph.widths] + [s3d.count(graph).params])
    torch.testing.assert_close(*results)
