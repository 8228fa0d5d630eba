"""The reverse of splitting: neurons are removed from a copy of a model.

What is left is the model as it was with zeros in the columns that read the removed neurons. So nothing changes if these
columns are zero, if the neurons' outputs are zero, or if the columns are added to those that read a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.equal_parts import unequal_cut
from nni_s3d.growth.surgery.carry_out import carry_out
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.optimizer_state import grown_state
from nni_s3d.growth.surgery.split import SplitResult
from nni_s3d.growth.surgery.takers import changed_average, check_numbers, find_takers, slopes

Neurons = Tensor | Sequence[int] | Sequence[bool]


@torch.no_grad()
def remove(
    model: nn.Module,
    graph: ChannelGraph,
    keep: Mapping[str, Neurons],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    into: Mapping[str, Tensor] | None = None,
) -> SplitResult:
    """Return a copy of the model without some of its neurons.

    It computes what the model would with zeros in the columns that read the removed neurons. So it is the same function
    if these neurons are dead (their outputs or these columns are zero), or if copies take over their columns (`into`).
    Two things are not done. The output of a removed neuron that is a constant but not zero, such as that of a batch
    norm with a scale of zero, is not added to the biases of its consumers: where these pad their inputs with zeros, no
    bias stands for it. And where a consumer takes the mean off each row of its weight (weight standardisation), the
    mean of what is left is taken off, so columns must sum to zero there for the function to stay.

    Args:
        model: the network that was traced, or another one of the same layers and widths; it is left as it is.
        graph: its channel graph.
        keep: {group: the neurons that stay}, as a mask (width,) bool or as their numbers in any order; neurons stay in
            their order. Groups that are left out keep all.
        optimizer: if given, its state is carried over: of what stays, every buffer stays.
        into: {group: (width,) int64}: the number of the neuron that takes over the columns that read each of the
            removed ones, which are added to its own; -1 for nobody. Entries of neurons that stay are not read. An
            optimizer gets what it would have gathered if these neurons are copies, see `merge`.

    Returns:
        As `split`. `index_map` has the numbers of the neurons that stayed.

    Raises:
        ConfigError: keep or into are no masks or numbers of neurons of a group, or nothing stays of a group.
        ModelError: the model does not belong to this graph, there is no such group or it cannot be split, parts would
            be left unequal that must be equal, channels would go that are averaged with others, a single neuron stays
            where a trace cannot tell its place (a grouped convolution with one channel in each block looks depthwise,
            say), or an optimizer keeps state that nobody
            knows how to carry over.

    Examples:
        >>> import nni_s3d as s3d
        >>> model, x = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.randn(4, 2)
        >>> _ = nn.init.zeros_(model[2].weight[:, 1])  # nothing reads the neuron in the middle
        >>> result = s3d.remove(model, s3d.trace(model, x), {"0": [0, 2]})
        >>> result.widths, result.index_map["0"].tolist(), result.model[0]
        ({'0': 2}, [0, 2], Linear(in_features=2, out_features=2, bias=True))
        >>> bool(torch.allclose(result.model(x), model(x), atol=1e-6))
        True
    """
    graph.check(model)
    masks = {group.name: torch.ones(group.width, dtype=torch.bool) for group in graph.splittable_groups}
    if not isinstance(keep, Mapping):
        raise ConfigError(f"keep: expected a mapping {{group: the neurons that stay}}, got {keep!r}")
    for name, neurons in keep.items():
        masks[name] = _mask(graph[name], neurons)
    copies = graph.per_channel(masks)
    _check_parts(graph, copies, masks)
    stays, ones = copies.bool(), torch.ones(int(copies.sum()), dtype=torch.float64)
    takers = find_takers(graph, stays, into or {})
    if (average := changed_average(graph, stays, takers)) is not None:
        raise ModelError(
            f"keep: expected all channels that {average.where} averages, or equally many copies of each into one, got "
            "others, which would change the average"
        )
    gradients = slopes(model, graph, takers)[stays] if into and optimizer is not None else None
    widths = {name: int(mask.sum()) for name, mask in masks.items()}
    try:
        done = carry_out(model, graph, NewChannels(copies, ones, ones, gradients, takers))
    except ModelError as error:
        raise _untraceable(graph, masks, error) from error
    state = None if optimizer is None else grown_state(model, optimizer, done.growth, {})
    index_map = {name: mask.nonzero()[:, 0] for name, mask in masks.items()}
    return SplitResult(done.model, done.graph, widths, index_map, state)


def _mask(group: ChannelGroup, neurons: Neurons) -> Tensor:
    """Return which neurons of a group stay, (width,) bool."""
    if not group.splittable:
        raise ModelError(f"keep: {group.name}: expected a group that can be split, but {group.reason}")
    try:
        given = torch.as_tensor(neurons).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"keep: {group.name}: expected a mask or numbers of neurons, got {neurons!r}") from error
    if given.dtype == torch.bool:
        if given.shape != (group.width,):
            expected = f"expected a mask of shape ({group.width},)"
            raise ConfigError(f"keep: {group.name}: {expected}, got {tuple(given.shape)}")
        mask = given.clone()
    else:
        check_numbers("keep", group, given, least=0)
        if len(given.unique()) < len(given):  # zeros and ones, say
            expected = "expected every number once, or a mask of the type bool"
            raise ConfigError(f"keep: {group.name}: {expected}, got {given.tolist()}")
        mask = torch.zeros(group.width, dtype=torch.bool)
        mask[given.long()] = True
    if not mask.any():
        raise ConfigError(f"keep: {group.name}: expected at least one neuron that stays, got none")
    return mask


def _check_parts(graph: ChannelGraph, stays: Tensor, masks: Mapping[str, Tensor]) -> None:
    found = unequal_cut(graph, stays)
    if found is not None:
        cut, sizes = found
        inside = cut.parts[cut.parts >= 0]
        names = [name for name in masks if ((inside >= graph[name].first) & (inside < graph[name].channels.stop)).any()]
        raise ModelError(
            f"keep: {', '.join(names)}: expected equal numbers in the {len(sizes)} parts into which {cut.where} cuts "
            f"its channels, got {', '.join(map(str, sizes))}; `with_equal_parts` keeps as few more as possible"
        )


def _untraceable(graph: ChannelGraph, masks: Mapping[str, Tensor], error: ModelError) -> ModelError:
    """Return what to say if the network without the neurons cannot be traced."""
    stays = graph.per_channel(masks)
    single = []
    for name in (name for name, mask in masks.items() if not mask.all()):
        channels = graph[name].channels
        parts = [part[(part >= channels.start) & (part < channels.stop)] for c in graph.equal_parts for part in c.parts]
        if 1 in [int(stays[part].sum()) for part in (torch.arange(channels.start, channels.stop), *parts)]:
            single.append(name)
    if single:
        expected = "expected two neurons or more that stay, in every part if it is cut into equal parts"
        return ModelError(f"keep: {', '.join(single)}: {expected}, got one, whose place a trace cannot tell")
    return ModelError(f"keep: expected a network that can be traced without these neurons, but {error}")
