"""Keep the parts equally large into which a network cuts its channels, such as the blocks of a grouped convolution.

Every part must grow by the same number of channels; which of its neurons grow is each part's own choice. Channels that
are averaged must all have the same number of copies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph, EqualParts
from nni_s3d.growth.graph.clusters import Cluster, Clusters, find_clusters
from nni_s3d.growth.graph.integer_program import milp

MAX_COPIES = 4  # of one neuron; more never gain more (Theorem 2.3)


def in_equal_parts(graph: ChannelGraph) -> Tensor:
    """Return which channels lie in some parts, whether these bind them or not, bool (channels,)."""
    inside = torch.zeros(graph.num_channels, dtype=torch.bool)
    for cut in graph.equal_parts:
        inside[cut.parts[cut.parts >= 0]] = True
    return inside


def smallest_step(graph: ChannelGraph, name: str) -> int:
    """Return how many neurons a group must grow by at least, so that all its parts grow evenly."""
    channels, step = graph[name].channels, 1
    for cut in graph.equal_parts:
        holds = ((cut.parts >= channels.start) & (cut.parts < channels.stop)).any(dim=1)
        step = math.lcm(step, max(1, int(holds.sum())))
    return step


def check_equal_parts(graph: ChannelGraph, copies: Tensor) -> None:
    """Raise ModelError unless copies (channels,) leave the parts of every cut equally large."""
    found = unequal_cut(graph, copies)
    if found is not None:
        cut, sizes = found
        raise ModelError(
            f"plan: expected {len(sizes)} equal parts where {cut.where} cuts its channels, "
            f"got {min(sizes)} to {max(sizes)} channels; `with_equal_parts` finds the nearest copies that fit"
        )


def unequal_cut(graph: ChannelGraph, copies: Tensor) -> tuple[EqualParts, list[int]] | None:
    """Return the first cut whose parts copies (channels,) leave unequal, and the sizes of these, if there is one."""
    for cut in graph.equal_parts:
        sizes = part_sizes(cut.parts, copies).tolist()
        if len(set(sizes)) > 1:
            return cut, sizes
    return None


def with_equal_parts(graph: ChannelGraph, copies: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the copies of every splittable group, raised as little as possible until all parts are equally large.

    The number of copies that are added is the smallest that is possible, or within 1% of it where cuts overlap so that
    parts may grow in several ratios. They go to the neurons with the fewest copies; channels that are averaged together
    get as many as the one of them that has most. Masks for `remove` are filled up likewise: as few more neurons stay as
    possible.

    Args:
        graph: the channel graph.
        copies: {group: (width,) of 1, 2, 3 and 4}; groups that are left out are not split if that is possible. Or masks
            {group: (width,) bool} of the neurons that stay; groups that are left out keep all.

    Raises:
        ModelError: no number of copies up to 4 of every neuron makes them equal.
    """
    wanted, found = np.ones(graph.num_channels, np.int64), find_clusters(graph)
    masks = any(torch.as_tensor(of_group).dtype == torch.bool for of_group in copies.values())
    for group in graph.splittable_groups:
        wanted[group.channels] = torch.as_tensor(copies.get(group.name, 1)).numpy(force=True)
    if not _fill_up(found, wanted):
        expected = f"expected numbers that keep the parts equal into which {cutters(graph)} cuts or averages channels"
        got = f"got none with up to {MAX_COPIES} copies of each neuron; split fewer of the neurons there"
        raise ModelError(f"copies: {expected}, {got}")
    filled = torch.from_numpy(wanted > 0 if masks else wanted)
    return {group.name: filled[group.channels] for group in graph.splittable_groups}


def cutters(graph: ChannelGraph) -> str:
    """Name the layers and functions that cut channels into equal parts, or average them."""
    names = [*(cut.where for cut in graph.equal_parts), *(average.where for average in graph.averages)]
    return ", ".join(dict.fromkeys(names))


def part_sizes(parts: Tensor, copies: Tensor) -> Tensor:
    """Return the new sizes (parts,) of parts (parts, n) with these copies (channels,)."""
    return torch.cat([copies, copies.new_ones(1)])[parts].sum(dim=1)  # the last one is for no channel, -1


def _fill_up(found: Clusters, copies: np.ndarray) -> bool:
    """Add copies (channels,), in place, until all parts are equally large; return whether that is possible."""
    if (copies[found.fixed.numpy()] > 1).any():
        return False
    copies[found.fixed.numpy()] = 1
    for cluster in found.clusters:
        more = [copies[cell] - 1 for cell in cluster.cells]
        now = np.array([n.max() if alike else n.sum() for n, alike in zip(more, cluster.alike, strict=True)])
        target = _smallest_growth(cluster, now)
        if target is None:
            return False
        for cell, alike in enumerate(cluster.alike):
            of_cell = cluster.cells[cell]
            if alike:
                copies[of_cell] = 1 + target[cell]
            else:
                copies[of_cell] = _raised(copies[of_cell], int(target[cell] - now[cell]))
    return True


def _smallest_growth(cluster: Cluster, least: np.ndarray) -> np.ndarray | None:
    """Return the fewest steps (cells,), at least so many of each cell, that leave all parts equal, if any."""
    from scipy.optimize import Bounds, LinearConstraint

    grows = least.max() > 0  # else channels are removed, if anything
    most = cluster.steps(MAX_COPIES - 1) * grows
    if cluster.ratio is not None:
        growth = cluster.ratio * int((-(-least // cluster.ratio)).max())
        return growth if bool((growth <= most).all()) else None
    solved = milp(
        np.where(cluster.alike, [len(cell) for cell in cluster.cells], 1),
        constraints=LinearConstraint(cluster.equations, 0, 0),
        bounds=Bounds(least, most),
        integrality=np.ones(len(most)),
        options={"mip_rel_gap": 0.01},
    )
    return None if solved.x is None else solved.x.round().astype(np.int64)


def _raised(copies: np.ndarray, more: int) -> np.ndarray:
    """Return copies (n,) with so many more, those with the fewest first."""
    copies = copies.copy()
    while more:
        fewest = np.flatnonzero(copies == copies.min())[:more]
        copies[fewest] += 1
        more -= len(fewest)
    return copies
