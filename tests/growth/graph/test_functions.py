from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from nni_s3d.growth.curvature import elementwise_nodes, nodes
from nni_s3d.growth.curvature.tape import Tape
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from nni_s3d.growth.graph.functions import (
    _NAMES,
    ELEMENTWISE,
    KINDS,
    LINEAR,
    Kind,
    batch_norm_arguments,
    canonical_name,
    functions,
)
from nni_s3d.growth.graph.rules import RULES


def sample(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / 4 + 2


OTHER = sample(3, 2, 4, 4, seed=6)
CALLS: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {  # with two channels of 4 x 4 positions
    "linear": (F.linear, (sample(5, 4),)),
    "conv2d": (F.conv2d, (sample(5, 2, 2, 2),)),
    "conv_transpose2d": (F.conv_transpose2d, (sample(2, 5, 2, 2),)),
    "batch_norm": (F.batch_norm, (sample(2), sample(2), sample(2), None)),
    "clone": (torch.clone, ()),
    "dropout": (F.dropout, (0.5, False)),
    "float": (Tensor.float, ()),
    "type_as": (Tensor.type_as, (sample(1).float(),)),
    **{
        name: (getattr(torch, name), ()) for name in ("relu", "sigmoid", "tanh", "exp", "abs", "square", "rsqrt", "erf")
    },
    **{name: (getattr(F, name), ()) for name in ("relu6", "silu", "gelu", "mish", "softplus", "hardswish", "rrelu")},
    "clamp": (torch.clamp, (0.1, 0.5)),
    "prelu": (F.prelu, (sample(2),)),
    "add": (torch.add, (2.5,)),
    "mul": (torch.mul, (2.5,)),
    "itruediv": (Tensor.__itruediv__, (2.5,)),
    "pow": (torch.pow, (2,)),
    "rsub": (Tensor.__rsub__, (2.5,)),
    "maximum": (torch.maximum, (OTHER,)),
    "glu": (F.glu, (1,)),
    "mean": (torch.mean, ((2, 3),)),
    "sum": (torch.sum, (2,)),
    "amax": (torch.amax, (2,)),
    "logsumexp": (torch.logsumexp, (2,)),
    "softmax": (torch.softmax, (2,)),
    "normalize": (F.normalize, (2.0, 2)),
    "avg_pool2d": (F.avg_pool2d, (2,)),
    "adaptive_avg_pool2d": (F.adaptive_avg_pool2d, (2,)),
    "max_pool2d": (F.max_pool2d, (2,)),
    "adaptive_max_pool2d": (F.adaptive_max_pool2d, (2,)),
    "lp_pool2d": (F.lp_pool2d, (2.0, 2)),
    "interpolate": (F.interpolate, (8,)),
    "permute": (torch.permute, ((0, 2, 3, 1),)),
    "flip": (torch.flip, ((1,),)),
    "repeat": (Tensor.repeat, (1, 1, 2, 1)),
    "flatten": (torch.flatten, (1,)),
    "unsqueeze": (torch.unsqueeze, (1,)),
    "chunk": (torch.chunk, (2, 1)),
    "getitem": (Tensor.__getitem__, (slice(1),)),
    "pad": (F.pad, ((1, 1),)),
    "matmul": (torch.matmul, (sample(4, 3),)),
    "scaled_dot_product_attention": (F.scaled_dot_product_attention, (OTHER, OTHER)),
}
Scale, Elementwise, Linear, Choice, Other = (
    elementwise_nodes.ChannelScale,
    elementwise_nodes.Elementwise,
    nodes.Linear,
    nodes.MaxPool,
    nodes.TwiceDifferentiable,
)
NODES = {  # None: the value goes on under its old name
    Kind.IDENTITY: None,
    Kind.SUM: None,
    Kind.BATCH_NORM: Scale,
    Kind.PRODUCT: Scale,
    Kind.MAX_POOL: Choice,
    **dict.fromkeys((Kind.CAST, Kind.ACTIVATION, Kind.PRELU, Kind.ELEMENTWISE, Kind.COMBINATION), Elementwise),
    **dict.fromkeys((Kind.LINEAR, Kind.MEAN, Kind.AVERAGE_POOL, Kind.INTERPOLATE), Linear),
    **dict.fromkeys((Kind.MOVE, Kind.RESHAPE, Kind.CUT), Linear),
    **dict.fromkeys((Kind.REDUCTION, Kind.ALONG_DIM, Kind.NORMALIZE, Kind.GLU, Kind.OTHER_POOL, Kind.PAD), Other),
    **dict.fromkeys((Kind.MATRIX_PRODUCT, Kind.ATTENTION), Other),
}


class Leaf:
    """The first step of a tape."""

    def run(self, *tensors: Tensor) -> Tensor:
        return tensors[0].clone()


def test_every_function_with_a_rule_has_a_kind_and_every_function_of_a_kind_a_rule():
    assert KINDS.keys() == RULES.keys()
    assert _NAMES.keys() == set(Kind)


def test_no_function_is_of_two_kinds():
    names = [name for names in _NAMES.values() for name in names.split()]
    assert len(names) == len(set(names))
    assert set(names) <= KINDS.keys() == set(functions(*Kind))
    assert functions(Kind.GLU, Kind.PAD) == ("glu", "pad")


@pytest.mark.parametrize("name", CALLS)
def test_the_tape_records_a_function_by_its_kind(name):
    func, args = CALLS[name]
    tape = Tape(3.0, ZeroBuffer())
    x, _ = tape.leaf(Leaf(), OTHER)
    assert canonical_name(func) == name
    tape.apply(func, name, (x, *args), {})
    found = type(tape._nodes[-1]) if tape._nodes else None
    assert found is NODES[KINDS[name]]


def test_what_the_table_calls_linear_or_element_wise_is_what_the_tape_treats_so():
    for kind, node in NODES.items():
        assert (node is Linear) == (kind in LINEAR - {Kind.IDENTITY, Kind.SUM})
        assert kind in ELEMENTWISE or node not in (Elementwise, None)


@pytest.mark.parametrize("name", [name for name in CALLS if KINDS[name] in LINEAR - {Kind.SUM}])
def test_linear_functions_are_linear(name):
    func, args = CALLS[name]
    x, y = sample(3, 2, 4, 4), OTHER
    both, first, second = (pytree.tree_leaves(func(z, *args)) for z in (2 * x - 3 * y, x, y))
    torch.testing.assert_close(both, [2 * a - 3 * b for a, b in zip(first, second, strict=True)])


@pytest.mark.parametrize("name", [name for name in CALLS if KINDS[name] in ELEMENTWISE])
def test_element_wise_functions_look_at_one_element_of_every_tensor(name):
    func, args = CALLS[name]

    def at(place: slice) -> Tensor:
        return func(OTHER[..., place].clone(), *(a[..., place] if a is OTHER else a for a in args))

    torch.testing.assert_close(at(slice(None)), torch.cat([at(slice(i, i + 1)) for i in range(4)], -1))


@pytest.mark.parametrize(
    "func, name",
    [
        (Tensor.__iadd__, "iadd"),
        (Tensor.relu_, "relu"),
        (Tensor.shape.__get__, "shape"),
        (F.conv2d, "conv2d"),
        (torch.special.expit, "expit"),
        (sample, "sample"),
    ],
)
def test_names_are_without_module_underscores_and_dunders(func, name):
    assert canonical_name(func) == name


def test_both_functions_for_a_batch_norm_take_the_same_arguments():
    mean, var, weight, bias = (object() for _ in range(4))
    one = batch_norm_arguments(F.batch_norm, (mean, var, weight, bias, False), {})
    two = batch_norm_arguments(torch.batch_norm, (weight, bias, mean, var, False, 0.1, 1e-5, True), {})
    assert {key: two[key] for key in one} == one
    assert batch_norm_arguments(F.batch_norm, (mean, var), {})["weight"] is None
