"""The kind of each function of PyTorch: one table for the tracer and the tape.

A function is known by its name without its module, in-place underscores and operator dunders, see `canonical_name`. The
rules of the trace register themselves for the functions of a kind; the tape chooses by kind how a function is
linearised. A function without a kind has no rule: channels that enter it are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import Any

import torch
from torch.overrides import resolve_name


class Kind(Enum):
    """What a function does to the channels that enter it, and whether it is linear in them."""

    LINEAR = "a layer with a weight: linear in its input, and in its weight and bias"
    EMBEDDING = "rows of a table that an index tensor names"
    BATCH_NORM = "one scale and one shift for each channel"
    INSTANCE_NORM = "one scale and one shift for each channel of each sample"
    MIXING_NORM = "a norm over several channels"

    IDENTITY = "what enters, in evaluation mode"
    CAST = "the same elements of another type"
    ACTIVATION = "an activation of every element"
    PRELU = "an activation with a learnt slope for each channel"
    ELEMENTWISE = "another function of every element"

    SUM = "the sum or difference of two tensors"
    PRODUCT = "the product of two tensors, or the first one divided by the second"
    COMBINATION = "another function of the elements of several tensors"
    CHOICE = "some elements of one tensor, the others of another"
    COMPARISON = "the sign of every element, or of its difference from another one"
    GLU = "one half of the channels times a function of the other half"

    MEAN = "a mean or sum over dimensions"
    REDUCTION = "another function that reduces dimensions"
    NORM = "a norm over dimensions"
    EXTREME = "an extreme over a dimension, and where it is"
    ALONG_DIM = "a function of all elements along a dimension, of the same shape"
    NORMALIZE = "a division by the norm along a dimension"
    AVERAGE_POOL = "means over windows of positions"
    MAX_POOL = "maxima over windows of positions"
    OTHER_POOL = "another function of windows of positions"
    INTERPOLATE = "weighted means of neighbouring positions"
    SAMPLE = "weighted means of positions that a second tensor names"

    MOVE = "the same elements in another order, or repeated"
    RESHAPE = "the same elements in another shape"
    CUT = "some of the elements"
    PICK = "elements that an index tensor names"
    CONCATENATE = "the elements of several tensors, one after the other along a dimension"
    STACK = "several tensors, one after the other along a new dimension"
    PAD = "constants around the elements"
    ADD_AT = "the elements of one tensor, with those of another one added at positions that an index tensor names"

    MATRIX_PRODUCT = "the product of two matrices"
    AFFINE_MATRIX_PRODUCT = "a matrix and the product of two others"
    SUM_OF_PRODUCTS = "a sum of products over named dimensions"
    ATTENTION = "softmax(Q K') V"
    MULTI_HEAD = "attention with its projections"
    RECURRENT = "a layer that runs over a sequence"
    TORCHSCRIPT = "code that a trace cannot see"
    FOLLOWER = "a registered layer with entries for each channel"


ELEMENTWISE = frozenset(  # of one or two tensors, whose shapes may be stretched over each other
    (
        Kind.IDENTITY,
        Kind.CAST,
        Kind.ACTIVATION,
        Kind.PRELU,
        Kind.ELEMENTWISE,
        Kind.SUM,
        Kind.PRODUCT,
        Kind.COMBINATION,
    )
)
LINEAR = frozenset(  # in all tensors with channels together
    (
        Kind.LINEAR,
        Kind.IDENTITY,
        Kind.SUM,
        Kind.MEAN,
        Kind.AVERAGE_POOL,
        Kind.INTERPOLATE,
        Kind.MOVE,
        Kind.RESHAPE,
        Kind.CUT,
        Kind.PICK,
        Kind.CONCATENATE,
        Kind.STACK,
        Kind.ADD_AT,
    )
)
PRODUCTS = frozenset(
    (Kind.MATRIX_PRODUCT, Kind.SUM_OF_PRODUCTS, Kind.ATTENTION)
)  # of two tensors, summed over some dims

_NAMES = {
    Kind.LINEAR: "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    Kind.EMBEDDING: "embedding",
    Kind.BATCH_NORM: "batch_norm",
    Kind.INSTANCE_NORM: "instance_norm",
    Kind.MIXING_NORM: "layer_norm group_norm rms_norm local_response_norm",
    Kind.IDENTITY: (
        "contiguous clone identity dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"
    ),
    Kind.CAST: "float double half bfloat16 to type type_as",
    Kind.ACTIVATION: (
        "relu relu6 hardtanh leaky_relu rrelu threshold hardswish hardsigmoid elu selu celu gelu silu mish softplus "
        "softsign sigmoid logsigmoid tanh tanhshrink hardshrink softshrink"
    ),
    Kind.PRELU: "prelu",
    Kind.ELEMENTWISE: (
        "neg abs exp log log1p expm1 sqrt rsqrt square reciprocal sin cos erf clamp clip clamp_min clamp_max absolute"
    ),
    Kind.SUM: "add sub iadd isub radd",
    Kind.PRODUCT: "mul multiply imul rmul div truediv idiv itruediv",
    Kind.COMBINATION: "rsub rdiv rtruediv pow rpow maximum minimum fmax fmin addcmul addcdiv lerp",
    Kind.CHOICE: "where masked_fill",
    Kind.COMPARISON: "gt lt ge le eq ne greater less greater_equal less_equal sign sgn heaviside",
    Kind.GLU: "glu",
    Kind.MEAN: "mean sum",
    Kind.REDUCTION: "amax amin std var std_mean var_mean logsumexp prod",
    Kind.NORM: "norm vector_norm",
    Kind.EXTREME: "max min median",
    Kind.ALONG_DIM: "softmax log_softmax softmin cumsum",
    Kind.NORMALIZE: "normalize",
    Kind.AVERAGE_POOL: ("avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
    Kind.MAX_POOL: "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    Kind.OTHER_POOL: "lp_pool1d lp_pool2d lp_pool3d",
    Kind.INTERPOLATE: "interpolate upsample upsample_nearest upsample_bilinear",
    Kind.SAMPLE: "grid_sample",
    Kind.MOVE: (
        "permute transpose swapaxes swapdims movedim moveaxis t T mT expand expand_as flip roll channel_shuffle "
        "native_channel_shuffle pixel_shuffle pixel_unshuffle broadcast_to broadcast_tensors repeat tile "
        "repeat_interleave"
    ),
    Kind.RESHAPE: "flatten reshape reshape_as view view_as unflatten squeeze unsqueeze",
    Kind.CUT: "chunk split tensor_split hsplit vsplit dsplit unbind narrow getitem select",
    Kind.PICK: "gather index_select take_along_dim",
    Kind.CONCATENATE: "cat concat concatenate",
    Kind.STACK: "stack",
    Kind.PAD: "pad",
    Kind.ADD_AT: "index_add",
    Kind.MATRIX_PRODUCT: "matmul bmm mm spmm mv rmatmul",
    Kind.AFFINE_MATRIX_PRODUCT: "addmm baddbmm",
    Kind.SUM_OF_PRODUCTS: "einsum",
    Kind.ATTENTION: "scaled_dot_product_attention",
    Kind.MULTI_HEAD: "multi_head_attention_forward",
    Kind.RECURRENT: "lstm gru rnn_tanh rnn_relu",
    Kind.TORCHSCRIPT: "torchscript",
    Kind.FOLLOWER: "",
}
KINDS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
DROPOUTS = tuple(name for name in KINDS if "dropout" in name)
# Functions that take only the shape or the type of a second tensor.
LENDS_SHAPE = {"expand_as", "view_as", "reshape_as", "type_as", "to"}
READS_SHAPES = {  # and other things that are known of a tensor without its values
    *"dim ndim ndimension shape size numel nelement stride storage_offset is_contiguous dtype device layout".split(),
    *"itemsize element_size is_floating_point is_complex is_cuda requires_grad is_leaf names len".split(),
}


_REGISTERED: dict[Callable[..., Any], str] = {}  # names of functions that are not PyTorch's own


def enter(func: Callable[..., Any], name: str, kind: Kind) -> None:
    """Enter a function that is not PyTorch's own, or has no kind yet, into the table."""
    _REGISTERED[func], KINDS[name] = name, kind
    canonical_name.cache_clear()


def filters_come_first(func: Callable[..., Any]) -> bool:
    """Whether the filters of a linear layer are known to lie along the first dimension of its weight."""
    name = canonical_name(func)
    return func not in _REGISTERED and "transpose" not in name and KINDS.get(name) is not Kind.EMBEDDING


def functions(*kinds: Kind) -> tuple[str, ...]:
    """Return the names of all functions of these kinds."""
    return tuple(name for name, kind in KINDS.items() if kind in kinds)


_TORCH_BATCH_NORM = "weight bias running_mean running_var training momentum eps cudnn_enabled".split()
_FUNCTIONAL_BATCH_NORM = "running_mean running_var weight bias training momentum eps".split()
_BATCH_NORM_DEFAULTS = {"weight": None, "bias": None, "training": False, "eps": 1e-5}


def batch_norm_arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a batch norm behind the input, by name; the two functions for it order them otherwise."""
    names = _TORCH_BATCH_NORM if func is torch.batch_norm else _FUNCTIONAL_BATCH_NORM
    return {**_BATCH_NORM_DEFAULTS, **dict(zip(names, args, strict=False)), **kwargs}


@lru_cache(maxsize=4096)  # looking a name up takes longer than many a function
def canonical_name(func: Callable[..., Any]) -> str:
    """Return a function's name without its module, in-place underscores and operator dunders."""
    if func in _REGISTERED:
        return _REGISTERED[func]
    name = (resolve_name(func) or getattr(func, "__name__", repr(func))).removesuffix(".__get__")
    return str(name).rpartition(".")[2].strip("_")
