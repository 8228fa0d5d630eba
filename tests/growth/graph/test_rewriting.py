"""Products with a weight, and the calls of `linear` that stand for them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nni_s3d.growth.graph.functions import canonical_name
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.rewriting import as_linear
from tests.wide import sample

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


OTHERS = {
    "linear itself": (F.linear, (X, W.T), {}),
    "two activations": (torch.matmul, (X, Y), {}),
    "two weights": (torch.matmul, (W.new_ones(2, 4), W), {}),
    "stacked weights": (torch.bmm, (X.new_ones(3, 5, 4), STACK), {}),
    "a stack": (torch.matmul, (X.new_ones(3, 5, 4), STACK), {}),
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
