"""Products with the Hessian of h over some of the functions that a tape has recorded."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils import _pytree as pytree

from nni_s3d.growth.curvature.nodes import Node, add


class Segment:
    """Functions that lie between some leaves and what is read of them; no other segment has to do with these leaves.

    Attributes:
        inputs: numbers of all values that its functions take, the leaves among them.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self.inputs = {value for node in nodes for value in node.inputs}
        last = {value: node for node in nodes for value in node.inputs}
        self._read_last_by = [[value for value in last if last[value] is node] for node in nodes]

    def tensors(self) -> list[Tensor]:
        """Return what is kept between products, in the nodes themselves."""
        attributes = [list(vars(node).values()) for node in self._nodes]
        return [x for x in pytree.tree_leaves(attributes) if isinstance(x, Tensor)]

    def hessian_times(self, tangents: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return the product of the Hessian with one vector, by leaf.

        Args:
            tangents: by leaf; leaves that are left out are not moved. It is emptied on the way, so that a tangent is
                gone as soon as nothing reads it any more.
        """
        self._forward(tangents)
        return self._backward()

    def _forward(self, tangents: dict[int, Tensor]) -> None:
        """Take tangents through all functions; these save what the way back needs."""
        for node, read_last in zip(self._nodes, self._read_last_by, strict=True):
            inputs = [tangents.get(value) for value in node.inputs]
            for value in read_last:
                tangents.pop(value, None)
            if any(tangent is not None for tangent in inputs):
                outputs = zip(node.outputs, node.jvp(inputs), strict=True)
                tangents.update((value, tangent) for value, tangent in outputs if tangent is not None)

    def _backward(self) -> dict[int, Tensor]:
        """Return the tangents of the leaves' cotangents."""
        cotangents: dict[int, Tensor] = {}
        for node in reversed(self._nodes):
            outputs = [cotangents.pop(value, None) for value in node.outputs]
            if node.saved is not None or any(w is not None for w in outputs):
                for value, w in zip(node.inputs, node.transpose(outputs), strict=True):
                    if w is not None:
                        cotangents[value] = add(cotangents.get(value), w)
            node.saved = None
        return cotangents
