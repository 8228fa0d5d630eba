"""Layers that work along positions, such as a linear layer over tokens: channels pass them.

    linear(x.transpose(1, 2), W, b):    y[n, c, t] = sum_s W[t, s] x[n, c, s] + b[t]

is one function for every channel c. So copies of a neuron come out as such, and none of the layer's numbers grows. Its
rows are positions then. Where they are the hidden units of an MLP over tokens they could be neurons instead, if the
channels that it takes are refused: `read` finds out what lets more grow.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Role
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rules.weighted import Weighted


def pass_along(notes: Notes, layer: Weighted, stride: int | Sequence[int] = 1) -> Tensor | None:
    """Return the labels of what comes out if channels pass the layer, and note that; None if they do not.

    Args:
        notes: of the trace.
        layer: a linear layer or convolution.
        stride: of the convolution.
    """
    labels = notes.labels(layer.input)
    if labels is None or not _works_along_positions(notes, layer, labels, stride):
        return None
    weight = notes.own.view(layer.weight)
    if weight is None or weight.name in notes.parameters:
        notes.could_pass = True
        if not notes.channels_pass:
            return None
    notes.note_products(layer.function, layer.macs(layer.out), labels)
    _refuse_rows(notes, layer)
    return labels


def _works_along_positions(notes: Notes, layer: Weighted, labels: Tensor, stride: int | Sequence[int]) -> bool:
    """Whether the layer does the same to every channel, and none of its windows sees two of them."""
    dim = layer.dim % labels.dim()
    if labels.numel() == 1 or labels.shape[dim] > 1 or dim == 0:
        return False
    if any(tensor is not None and not notes.own.behind(tensor) for tensor in (layer.weight, layer.bias)):
        return False
    windows, before, after = (x.shape[n:] for x, n in ((layer.weight, 2), (layer.input, dim + 1), (layer.out, dim + 1)))
    steps = [stride] * len(windows) if isinstance(stride, int) else stride
    slid = zip(labels.shape[dim + 1 :], windows, steps, before, after, strict=True)
    return all(size == 1 or (window == step == 1 and n == m) for size, window, step, n, m in slid)


def _refuse_rows(notes: Notes, layer: Weighted) -> None:
    """Note the rows of the weight as channels that cannot be split."""
    views = [notes.own.view(tensor) for tensor in (layer.weight, layer.bias)]
    of_weight, of_bias = views
    if of_weight is None or of_weight.name not in notes.parameters or (row := of_weight.dims[0]) is None:
        return
    rows = notes.rows(of_weight.name, layer.out.shape[layer.dim])
    axes = [Axis(of_weight.name, row, Role.ROW, rows)]
    if of_bias is not None:
        axes.append(Axis(of_bias.name, 0, Role.ROW, rows))
    met = f"its rows are positions of the channels that pass {of_weight.name}"
    notes.refuse([rows], met, "split those channels instead")
    notes.add_layer(layer.function, [axis.tensor for axis in axes], axes)
