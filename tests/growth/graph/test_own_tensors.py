"""What is made of a model's own tensors alone, checked against what the functions do to numbered elements."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nni_s3d.growth.graph.own_tensors import OwnTensors, Source


class Follows(TorchFunctionMode):
    def __init__(self, own: OwnTensors) -> None:
        super().__init__()
        self.own = own

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.own.follow(func, args, kwargs or {}, out)
        return out


X = torch.rand(2, 5, 4)
W, V, G, ONE = torch.rand(3, 4), torch.rand(4), torch.rand(1, 4, 1, 1), torch.rand(1)
OWN = {"w": W, "v": V, "g": G, "one": ONE}


def followed(make: Callable[[], Tensor]) -> tuple[OwnTensors, Tensor]:
    own = OwnTensors(OWN)
    with torch.no_grad(), Follows(own):
        out = make()
    return own, out


VIEWS = {
    "w": (lambda: W, (0, 1)),
    "transposed": (lambda: W.T, (1, 0)),
    "twice": (lambda: W.transpose(0, 1).permute(1, 0), (0, 1)),
    "with ones": (lambda: W.unsqueeze(-1)[None], (None, 0, 1, None)),
    "without ones": (lambda: G.flatten(), (1,)),
    "reshaped": (lambda: W.view(3, 1, 4).reshape(1, 3, 4), (None, 0, 1)),
    "as another": (lambda: G.view_as(torch.rand(4, 1)), (1, None)),
    "contiguous": (lambda: W.contiguous(), (0, 1)),
    "one element": (lambda: ONE[None], (None, None)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_a_whole_tensor(name):
    make, dims = VIEWS[name]
    own, out = followed(make)
    view = own.view(out)
    assert view is not None
    assert view.dims == dims
    assert torch.equal(view.seen(own.tensor(view.name)), out)


def test_a_view_of_a_tensor_that_has_grown():
    source = Source("w", (None, 1, 0))
    assert source.seen(torch.rand(5, 7)).shape == (1, 7, 5)


def test_a_row_of_size_one_is_found_by_elimination():
    row = torch.rand(1, 4)
    own = OwnTensors({"row": row})
    with Follows(own):
        column, both = row.T, row.T[None]
    assert own.view(column).dims == (1, 0)
    assert own.view(both).dims == (None, 1, None)  # which one is it?


MADE = {
    "a product": (lambda: V.view(1, -1, 1, 1) * G, {"v": (None, 0, None, None), "g": (0, 1, 2, 3)}),
    "frozen batch norm": (lambda: (V * (G.flatten() + 1e-5).rsqrt())[:, None], {"v": (0, None), "g": (1, None)}),
    "a function": (lambda: F.softplus(V).exp(), {"v": (0,)}),
    "a sum with a matrix": (lambda: W + V, {"w": (0, 1), "v": (None, 0)}),
    "another type": (lambda: V.double().to(X).type_as(X), {"v": (0,)}),
    "stretched": (lambda: ONE.expand(4).clone(), {"one": (None,)}),
    "repeated": (lambda: G.repeat(2, 1, 3, 1), {"g": (None, 1, None, 3)}),
    "a slice": (lambda: W[1].clone(), {"w": (1,)}),
    "with a number": (lambda: V.clamp(min=0.1) * torch.tensor(2.0), {"v": (0,)}),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_of_them(name):
    make, dims = MADE[name]
    own, out = followed(make)
    assert own.view(out) is None
    assert {source.name: source.dims for source in own.sources(out)} == dims


OTHERS = {
    "with something else": lambda: V * X,
    "half of it": lambda: W[:, :2],
    "a number of it": lambda: V.sum(),
    "mixed up": lambda: W.T.reshape(3, 4),
    "in another order": lambda: V.flip(0),
    "picked": lambda: V[torch.tensor([0, 1, 2, 3])],
    "merged": lambda: W.flatten(),
    "doubled": lambda: V.repeat(2),
    "in place": lambda: V.clone().mul_(X[0, 0]),
    "another one's type": lambda: X.type_as(V),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_made_of_them_alone(name):
    own, out = followed(OTHERS[name])
    if name != "in place":
        assert own.sources(out) == ()
    assert own.view(out) is None


def test_what_changes_in_place_is_not_followed():
    own, copy = followed(V.clone)
    assert own.follow(Tensor.contiguous, (copy,), {}, copy)
    assert own.behind(copy) == ("v",)
    assert not own.follow(Tensor.mul_, (copy, 2), {}, copy)
    assert own.behind(copy) == ()


RECIPES = {
    "weight norm": (lambda: torch._weight_norm(W, W.norm(dim=1, keepdim=True)), ("w",)),
    "product": (lambda: torch.outer(V[:3], V), ("v",)),
    "masked": (lambda: W * (V > 0.5), ("w", "v")),
    "sum of two": (lambda: W + torch.matmul(W, torch.outer(V, V)), ("w", "v")),
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_any_functions_make_is_made_again_with_other_values(name):
    make, behind = RECIPES[name]
    own, out = followed(make)
    assert own.behind(out) == behind
    assert torch.equal(own.made_again(out, {}), out)
    values = {"w": W + 1, "v": V.flip(0)}
    again = own.made_again(out, values)
    torch.testing.assert_close(again, eval_with(make, values))


def eval_with(make: Callable[[], Tensor], values: dict[str, Tensor]) -> Tensor:
    old = {"w": W.clone(), "v": V.clone()}
    for name, tensor in {"w": W, "v": V}.items():
        tensor.copy_(values[name])
    try:
        return make().clone()
    finally:
        for name, tensor in {"w": W, "v": V}.items():
            tensor.copy_(old[name])


def test_the_tensors_of_a_model():
    model = nn.BatchNorm1d(3)
    own = OwnTensors.of(model)
    assert own.tensor("running_mean") is model.running_mean
    assert own.sources(model.weight) == (Source("weight", (0,)),)
    assert own.sources(None) == ()
    assert own.view(None) is None


STACK = torch.rand(3, 4, 5)
BLOCKS = {
    "an index": (lambda: STACK[1], (1, 2), STACK[1]),
    "a tensor for an index": (lambda: STACK[torch.tensor(2)], (1, 2), STACK[2]),
    "unbound": (lambda: STACK.unbind()[2], (1, 2), STACK[2]),
    "iterated": (lambda: next(iter(STACK)), (1, 2), STACK[0]),
    "transposed before": (lambda: STACK.mT[1], (2, 1), STACK[1]),
    "transposed behind": (lambda: STACK[1].t(), (2, 1), STACK[1]),
    "selected": (lambda: STACK.select(0, 1)[None], (None, 1, 2), STACK[1]),
    "of vectors": (lambda: W[2], (1,), W[2]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_a_stack(name):
    make, dims, part = BLOCKS[name]
    own = OwnTensors(OWN | {"stack": STACK})
    with torch.no_grad(), Follows(own):
        out = make()
    block = own.block(out)
    assert block is not None
    assert (block.dims, own.view(out), own.stands_for(out)) == (dims, None, block.name)
    assert torch.equal(own.tensor(block.name)[block.block], part)
    assert torch.equal(block.seen(part), out)


@pytest.mark.parametrize("make", [lambda: STACK, lambda: STACK[:, 1], lambda: STACK[1:], lambda: STACK[1, :2]])
def test_what_is_no_block_of_a_stack(make):
    own = OwnTensors({"stack": STACK})
    with torch.no_grad(), Follows(own):
        out = make()
    assert own.block(out) is None
