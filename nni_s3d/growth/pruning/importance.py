"""How important every neuron of a network is, by measures that are usual for pruning."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.curvature.batch import Batch, LossFn
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.functions import KINDS, Kind
from nni_s3d.growth.graph.theta import pack, sums_of_slots
from nni_s3d.growth.pruning.taylor import first_order_changes

IMPORTANCES = ("taylor", "l1", "batch_norm")


def importance(
    model: nn.Module,
    graph: ChannelGraph,
    kind: str = "taylor",
    batches: Iterable[Batch] = (),
    loss_fn: LossFn | None = None,
) -> dict[str, Tensor]:
    """Return the importance of every neuron, {group: (width,) float64}, all >= 0.

    - "taylor": how much the loss changes to first order if a neuron is removed, in units of the loss: the size of the
      derivative of a batch's mean loss by a factor on the neuron's output, averaged over the batches. The derivative is
      that of the gates of Molchanov et al. (2019), the sum of weight times gradient over the columns that read the
      neuron, which is also that of activation times gradient over all positions (Molchanov et al., 2017).
    - "l1": the sum of |theta| (Li et al., 2017), over the weights and biases of all producers.
    - "batch_norm": |gamma|, the scale in the batch norm that follows (Liu et al., 2017), the mean of them if there are
      several. Groups that no batch norm follows are left out.

    Args:
        model: the network that was traced. For "taylor" it is run in evaluation mode; it is left as it is.
        graph: its channel graph.
        kind: "taylor", "l1" or "batch_norm".
        batches: for "taylor", pairs (inputs, targets). Small batches come closer to the change of each sample.
        loss_fn: for "taylor", loss_fn(outputs, targets) -> scalar, the mean over a batch.

    Raises:
        ConfigError: there is no such kind, or "taylor" is asked for without batches or a loss.
        ModelError: the model does not belong to this graph, its loss is no scalar, or no batch norm follows any neuron.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
        >>> x, y = torch.randn(8, 4), torch.randint(2, (8,))
        >>> graph = s3d.trace(model, x)
        >>> scores = s3d.importance(model, graph, "taylor", [(x, y)], torch.nn.functional.cross_entropy)
        >>> {name: tuple(score.shape) for name, score in scores.items()}
        {'0': (3,)}
    """
    graph.check(model)
    if kind == "taylor":
        if loss_fn is None:
            raise ConfigError("loss_fn: expected one for the importance 'taylor', got none")
        changes = first_order_changes(model, graph, batches, loss_fn)
        return {group.name: changes[group.channels] for group in graph.splittable_groups}
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        if kind == "l1":
            return {g.name: pack(g, parameters).double().abs().sum(dim=1).cpu() for g in graph.splittable_groups}
        if kind == "batch_norm":
            return _scales(graph, parameters)
    raise ConfigError(f"kind: expected one of {', '.join(IMPORTANCES)}, got {kind!r}")


def _scales(graph: ChannelGraph, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    scales = {group.name: _scale(group, parameters) for group in graph.splittable_groups}
    found = {name: scale for name, scale in scales.items() if scale is not None}
    if not found:
        raise ModelError("importance: expected batch norms behind some neurons, got none; take 'l1' or 'taylor'")
    return found


def _scale(group: ChannelGroup, parameters: dict[str, nn.Parameter]) -> Tensor | None:
    """Return the mean |gamma| of the batch norms that follow the neurons of a group, None if there are none."""
    sums, norms = torch.zeros(2, group.width, dtype=torch.float64)
    for layer in group.followers:
        if KINDS.get(layer.kind) is Kind.BATCH_NORM and len(layer.parameters) == 2:  # scale and shift
            gamma = next(axis for axis in layer.axes if axis.tensor == layer.parameters[0])
            inside = (gamma.slots >= group.first) & (gamma.slots < group.channels.stop)
            neurons = gamma.slots[inside] - group.first
            sums.index_add_(0, neurons, sums_of_slots(parameters[gamma.tensor].abs(), gamma)[inside])
            norms.index_add_(0, neurons, torch.ones(len(neurons), dtype=torch.float64))
    return sums / norms if bool((norms > 0).all()) else None
