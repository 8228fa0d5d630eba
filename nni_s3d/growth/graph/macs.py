"""Count the multiplications inside a function that has no rule, as PyTorch's own FLOP counter does.

The counter sees the operators that the function is made of. It knows matrix products, convolutions and attention; of
any other operator with two tensors of numbers it cannot be said that it multiplies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nni_s3d.growth.modules import tensors

_aten = torch.ops.aten
_DOTS = {_aten.mv, _aten.dot, _aten.vdot}  # as many products as the first tensor has numbers; the counter lacks them
_FUSED = "_scaled_dot_product"  # attention; which kernels there are depends on the device
_TRANSFORMS = {"fft", "linalg", "cholesky", "inverse", "qr", "svd", "lu", "matrix"}  # products, but of one tensor
_NO_PRODUCTS = {  # operators that take several tensors of numbers and add up no products of them
    *"cat stack meshgrid fill copy _to_copy put index_put _index_put_impl index_copy index_add index_fill".split(),
    *"scatter scatter_add scatter_reduce masked_scatter slice_scatter select_scatter diagonal_scatter".split(),
    *"equal allclose isin searchsorted bucketize nms".split(),
    *"native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm".split(),
    *"_batch_norm_no_update native_layer_norm native_group_norm _fused_rms_norm _weight_norm_interface".split(),
    *"grid_sampler_2d grid_sampler_3d roi_align roi_pool ps_roi_align ps_roi_pool fractional_max_pool2d".split(),
    *"fractional_max_pool3d _embedding_bag _embedding_bag_forward_only block_diag polar rrelu_with_noise dist".split(),
    *"cross linalg_cross linalg_vector_norm binary_cross_entropy binary_cross_entropy_with_logits".split(),
    *"fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask_tensor_qparams".split(),
}


class MacCounter(TorchDispatchMode):
    """Counts the multiplications of everything that runs inside it.

    Attributes:
        macs: multiplications of the operators that are known.
        of_vectors: those among them that PyTorch's counter does not know, of a vector.
        unknown: whether an operator ran that may multiply and is not known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.of_vectors = 0
        self.unknown = False

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        operator = func._overloadpacket
        if operator in flop_registry:
            flops: Callable[..., int] = flop_registry[operator]
            self.macs += flops(*args, **kwargs, out_val=out) // 2
        elif operator in _DOTS:
            self.macs += args[0].numel()
            self.of_vectors += args[0].numel()
        elif operator.__name__.startswith(_FUSED):
            query, key = args[:2]
            self.macs += (query.numel() + out[0].numel()) * key.shape[-2]
        elif _may_multiply(func, (args, kwargs)):
            self.unknown = True
        return out


def _may_multiply(func: Any, inputs: object) -> bool:
    name = func._schema.name.partition("::")[2].removesuffix("_")
    if torch.Tag.pointwise in func.tags or func.is_view or name in _NO_PRODUCTS or "_loss" in name:
        return False
    numbers = [x for x in tensors(inputs) if x.is_floating_point() or x.is_complex()]
    transform = not _TRANSFORMS.isdisjoint(name.split("_"))
    return bool(numbers) and (len(numbers) > 1 or transform or func.namespace not in ("aten", "prims"))
