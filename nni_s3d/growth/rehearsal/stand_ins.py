"""Stand-ins for large weights, which get their values when the one function that takes them is called.

A network that grows all at once needs as much memory again as it has, and fresh memory costs more time than the copies.
All stand-ins share the memory of the largest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nni_s3d.growth.graph.calls import Call
from nni_s3d.growth.graph.functions import KINDS, Kind
from nni_s3d.growth.surgery.axis_growth import AxisGrowth

_LARGE = 1 << 16  # bytes


class StandIns:
    """Stand-ins for the large weights that a run takes once, each in a linear layer.

    Args:
        growth: how the dimensions of the network grow.
        tensors: {name: value} of its parameters and buffers before.
        calls: of a run before.

    Attributes:
        tensors: {name: a tensor of the new shape with any values}.
    """

    def __init__(self, growth: AxisGrowth, tensors: Mapping[str, Tensor], calls: Sequence[Call]) -> None:
        self._growth, self._old = growth, tensors
        uses = Counter(source for _, sources in calls for source in sources)
        linear = (sources for name, sources in calls if KINDS.get(name) is Kind.LINEAR)
        large = [[str(one) for one in sources if uses[one] == 1 and self._is_large(one)] for sources in linear]
        names = [weights[0] for weights in large if weights]  # one for each call, since they share their memory
        shapes = {name: growth.shape(name, tensors[name]) for name in names}
        sizes = [shape.numel() * tensors[name].element_size() for name, shape in shapes.items()]
        self.tensors: dict[str, Tensor] = {}
        if names:
            memory = torch.empty(max(sizes), dtype=torch.uint8, device=tensors[names[0]].device)
            for (name, shape), size in zip(shapes.items(), sizes, strict=True):
                self.tensors[name] = memory[:size].view(tensors[name].dtype).view(shape)

    def write(self, name: str) -> None:
        """Write the value of a parameter or buffer into its stand-in, if it has one."""
        if name in self.tensors:
            self._growth.write(name, self._old[name], self.tensors[name])

    def _is_large(self, source: object) -> bool:
        if not isinstance(source, str) or not self._growth.grows(source):
            return False
        return self._old[source].numel() * self._old[source].element_size() >= _LARGE
