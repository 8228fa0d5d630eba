"""Keep the parts equally large into which a network cuts its channels, such as the blocks of a grouped convolution.

Every part must grow by the same number of channels; which of its neurons grow is each part's own choice. That is a set
of linear equations, equations @ (copies - 1) = 0, since the parts are equal before anything grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.integer_program import milp

MAX_COPIES = 4  # of one neuron; more never gain more (Theorem 2.3)


def equations(graph: ChannelGraph) -> Any:
    """Return the sparse matrix (equations, channels) whose product with copies - 1 must be 0."""
    from scipy.sparse import csr_array, vstack

    rows = [csr_array((0, graph.num_channels))]
    for cut in graph.equal_parts:
        parts, size = cut.parts.shape
        slots, part = cut.parts.flatten(), torch.arange(parts).repeat_interleave(size)
        inside = slots >= 0
        place = (part[inside].numpy(), slots[inside].numpy())
        counts = csr_array((np.ones(len(place[0])), place), shape=(parts, graph.num_channels))
        rows.append(counts[1:] - counts[[0] * (parts - 1)])
    return vstack(rows, format="csr")


def in_equal_parts(graph: ChannelGraph) -> Tensor:
    """Return which channels lie in parts that must stay equally large, bool (channels,)."""
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
    for cut in graph.equal_parts:
        sizes = part_sizes(cut.parts, copies).tolist()
        if len(set(sizes)) > 1:
            raise ModelError(
                f"plan: expected {len(sizes)} equal parts where {cut.where} cuts its channels, "
                f"got {min(sizes)} to {max(sizes)} channels; `with_equal_parts` finds the nearest copies that fit"
            )


def with_equal_parts(graph: ChannelGraph, copies: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the copies of every splittable group, raised as little as possible until all parts are equally large.

    The number of copies that are added is within 1% of the smallest that is possible.

    Args:
        graph: the channel graph.
        copies: {group: (width,) of 1, 2, 3 and 4}; groups that are left out are not split if that is possible.

    Raises:
        ModelError: no number of copies up to 4 of every neuron makes them equal.
    """
    wanted, most = torch.ones(2, graph.num_channels, dtype=torch.int64)
    for group in graph.splittable_groups:
        wanted[group.channels] = torch.as_tensor(copies.get(group.name, 1)).to(torch.int64)
        most[group.channels] = MAX_COPIES
    sizes = [(part_sizes(cut.parts, wanted), part_sizes(cut.parts, most)) for cut in graph.equal_parts]
    if any(int(now.max()) > int(now.min()) for now, _ in sizes):
        # A part that cannot become as large as another one already is needs no integer program.
        possible = all(int(now.max()) <= int(largest.min()) for now, largest in sizes)
        more = _fewest_more(equations(graph), (wanted - 1).numpy(), (most - wanted).numpy()) if possible else None
        if more is None:
            expected = f"expected numbers that keep the parts equal into which {cutters(graph)} cuts channels"
            got = f"got none with up to {MAX_COPIES} copies of each neuron; split fewer of the neurons there"
            raise ModelError(f"copies: {expected}, {got}")
        wanted += torch.from_numpy(more)
    return {group.name: wanted[group.channels] for group in graph.splittable_groups}


def cutters(graph: ChannelGraph) -> str:
    """Name the layers and functions that cut channels into equal parts."""
    return ", ".join(dict.fromkeys(cut.where for cut in graph.equal_parts))


def part_sizes(parts: Tensor, copies: Tensor) -> Tensor:
    """Return the new sizes (parts,) of parts (parts, n) with these copies (channels,)."""
    return torch.cat([copies, copies.new_ones(1)])[parts].sum(dim=1)  # the last one is for no channel, -1


def _fewest_more(matrix: Any, extra: np.ndarray, room: np.ndarray) -> np.ndarray | None:
    """Return the fewest copies (channels,) to add, at most `room`, so that matrix @ (extra + more) = 0, if any."""
    from scipy.optimize import Bounds, LinearConstraint

    off = matrix @ extra
    solved = milp(
        np.ones(len(extra)),
        constraints=LinearConstraint(matrix, -off, -off),
        bounds=Bounds(0, room),
        integrality=np.ones(len(extra)),
        options={"mip_rel_gap": 0.01},
    )
    return None if solved.x is None else solved.x.round().astype(np.int64)
