"""Along which dimension a reshape lets its channels grow.

`y.view(b, c // 2, 2, h, w)` and `y.view(b, 8, c // 8, h, w)` may be one and the same in an example run. Where channels
get more, the first one gets more pairs and the second one longer rows, so they must be cut into other parts. Mostly the
last dimension grows. To be sure, all channels that are cut are doubled, which both of them bear, and the shapes tell.
Where parts are the heads of attention their number stays, whatever a reshape makes of more channels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.clusters import find_clusters
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.read import read_run
from nni_s3d.growth.modules import modules_restored
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.install import install
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place


def growing_dims(model: nn.Module, graph: ChannelGraph, notes: Notes) -> dict[int, int]:
    """Return {number of a reshape: the dimension along which its channels get more} where that is not the last one.

    Args:
        model: which is left as it is.
        graph: of the model, in which every reshape lets its last dimension grow.
        notes: that it was built from.
    """
    cuts = [cut for cut in graph.equal_parts if cut.reshape is not None]
    if not cuts:  # as a rule
        return {}
    inside = find_clusters(graph).inside
    cuts = [cut for cut in cuts if inside[cut.parts[cut.parts >= 0]].any()]
    if not cuts:
        return {}
    reshapes = _reshapes_of_doubled(model, graph, torch.cat([cut.parts[cut.parts >= 0] for cut in cuts]))
    if [where for where, _ in reshapes] != [where for where, _ in notes.reshapes]:
        return {}
    roots, found = notes.same.roots(), {}
    in_heads = [labels.numpy() for labels in notes.products.in_heads]
    stay = np.concatenate([roots[:0], *(roots[labels[labels >= 0]] for labels in in_heads)])
    for n in {cut.reshape for cut in cuts if cut.reshape is not None}:
        before, after = notes.reshapes[n][1].shape, reshapes[n][1].shape
        varying = [dim for dim, size in enumerate(before) if size > 1]
        grown = [dim for dim, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        stays = np.isin(roots[notes.reshapes[n][1].numpy()], stay).any()
        if len(grown) == 1 and grown[0] in varying[:-1] and not stays:
            found[n] = grown[0]
    return found


def _reshapes_of_doubled(model: nn.Module, graph: ChannelGraph, cut: Tensor) -> list[tuple[str, Tensor]]:
    """Return the reshapes of a run in which groups with one of these channels are twice as wide; none if it fails."""
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    for group in graph.splittable_groups:
        if bool(((cut >= group.first) & (cut < group.first + group.width)).any()):
            copies[group.channels] = 2
    ones = torch.ones(int(copies.sum()), dtype=torch.float64)  # values do not matter, only shapes
    before = {name: x.detach() for name, x in (*model.named_parameters(), *model.named_buffers())}
    try:
        with modules_restored(model):
            growth = AxisGrowth(graph, NewChannels(copies, ones, ones), slots_in_place(graph, copies))
            install(model, growth.values(before), graph.layers, growth.attributes)
            return read_run(model, graph.example_inputs, graph.channels_pass).notes.reshapes
    except ModelError:
        return []
