"""The notes of a trace: rules read the labels of tensors off them, and write down what they see.

The labels of a tensor are an int64 tensor that broadcasts to it and says to which channel each element belongs, `NONE`
where it belongs to none. A tensor without any channel has None for labels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.channels import Axis, EqualParts, Layer, Operation
from nni_s3d.growth.graph.labels import NONE, interleaved_runs
from nni_s3d.growth.graph.union_find import UnionFind
from nni_s3d.growth.modules import tensors


class Notes:
    """The notes that a tracer takes of one run of a model.

    Attributes:
        parameters: those of the model that runs, each under its first name.
        buffers: its buffers, likewise.
        same: which channels were found to be one.
        refusals: labels of channels that cannot be split, and why; of several reasons for a channel the first counts.
        layers: every use of a parameter whose dimensions are indexed by channels, in the order of the run.
        operations: what was computed.
        equal_parts: where channels were cut into parts.
        elsewhere: {parameter or buffer: a function that took it without a rule for that}.
        uncounted: in order, the names of functions that may multiply and whose MACs nobody knows.
        samples: how many samples the example inputs hold.
        outputs: the tensors that the model returned.
        in_order: whether no function changed the order of channels, or left some of them out.
    """

    def __init__(self, model: nn.Module) -> None:
        self.same = UnionFind()
        self.refusals: list[tuple[Tensor, str]] = []
        self.layers: list[Layer] = []
        self.operations: list[Operation] = []
        self.equal_parts: list[EqualParts] = []
        self.elsewhere: dict[str, str] = {}
        self.uncounted: dict[str, None] = {}
        self.samples = 1
        self.outputs: list[Tensor] = []
        self.in_order = True
        self.parameters: dict[str, nn.Parameter] = {}
        self.buffers: dict[str, Tensor] = {}
        self._owners: dict[int, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            for kept, own in ((self.parameters, module._parameters), (self.buffers, module._buffers)):
                for name, tensor in own.items():
                    if tensor is not None:
                        name = f"{path}.{name}" if path else name
                        if id(tensor) not in self._owners:
                            kept[name] = tensor
                        self._owners.setdefault(id(tensor), []).append(name)
        self._shared = {name for names in self._owners.values() if len(names) > 1 for name in names}
        self._used: set[str] = set()  # parameters and buffers of layers
        # The run's tensors are kept alive so that no two of them ever share an id.
        self._labels: dict[int, tuple[Tensor, Tensor | None]] = {}
        # Layers after each other share the channels between them; so what is made of them once is found again.
        self._spread: dict[tuple[int, int, int], Tensor] = {}  # labels by the ids of their slots
        self._slots: dict[int, Tensor] = {}  # and slots by the ids of their labels

    def labels(self, tensor: object) -> Tensor | None:
        """Return the labels of a tensor, None if it carries no channels."""
        return self._labels.get(id(tensor), (None, None))[1]

    def label(self, tensor: Tensor, labels: Tensor | None) -> None:
        """Give a tensor its labels."""
        self._labels[id(tensor)] = (tensor, labels)

    def owner(self, tensor: Tensor | None) -> str | None:
        """Return the dotted name of a parameter or buffer of the model, None for any other tensor."""
        names = self._owners.get(id(tensor))
        return names[0] if names else None

    def along(self, tensor: Tensor, dim: int) -> Tensor | None:
        """Return the channel at each index of one dimension (size,), or None if channels run along another one."""
        size, labels = tensor.shape[dim], self.labels(tensor)
        if labels is None:
            return torch.full((size,), NONE)
        if labels.numel() == labels.shape[dim] == size > 1:
            return self._slots_of(labels)
        others = [n for d, n in enumerate(tensor.shape) if d not in (0, dim % tensor.dim())]
        # The labels of a single channel do not say which way it runs: along a dimension of size one, if there is one.
        elsewhere = labels.numel() == 1 and size > 1 and 1 in others
        if labels.numel() != labels.shape[dim] or elsewhere:
            return None
        return labels.reshape(-1).expand(size)

    def spread(self, slots: Tensor, dims: int, dim: int) -> Tensor:
        """Return the labels of a tensor with so many dimensions whose channels (n,) run along one of them."""
        key = (id(slots), dims, dim % dims)
        if key not in self._spread:
            shape = [1] * dims
            shape[dim] = slots.numel()
            labels = slots.reshape(shape)
            self._spread[key], self._slots[id(labels)] = labels, slots
        return self._spread[key]

    def _slots_of(self, labels: Tensor) -> Tensor:
        """Return labels (n,) in one dimension, those that were spread if they are such."""
        return self._slots[id(labels)] if id(labels) in self._slots else labels.flatten()

    def refuse(self, labels: Iterable[Tensor | None], reason: str) -> Tensor | None:
        """Refuse all these channels, for the first reason given; what comes out carries no labels."""
        for label in labels:
            if label is not None:
                self.refusals.append((label, reason))
        return None

    def refuse_inputs(self, name: str, inputs: object, reason: str = "") -> Tensor | None:
        """Refuse the channels of all tensors that enter a function; what comes out carries no labels."""
        labels = [self.labels(tensor) for tensor in tensors(inputs)]
        return self.refuse(labels, reason or f"its channels enter {name}, which has no exact rule")

    def join(self, first: Tensor, second: Tensor) -> None:
        """Make the channels one that meet where two labels are laid over each other."""
        self.same.union(*torch.broadcast_tensors(first, second))

    def note_equal_parts(self, where: str, slots: Tensor, parts: int) -> None:
        """Note that these slots (n,) are cut into parts that must stay equally large."""
        if slots.numel() % parts:
            self.refuse([slots], f"{where} cuts its channels into unequal parts")
            return
        runs = interleaved_runs(slots)
        cut = slots.reshape(parts, -1)
        if (slots.numel() // runs) % parts == 0:  # every run is cut evenly
            cut = slots.reshape(parts, -1, runs).transpose(1, 2).reshape(parts * runs, -1)
        self.equal_parts.append(EqualParts(where, cut))

    def note_activation(self, name: str, out: Tensor, labels: Tensor | None) -> None:
        """Note that an activation is applied to every element."""
        slots = torch.full((1,), NONE) if labels is None else self._slots_of(labels)
        self.operations.append(Operation(name, out.numel() / (self.samples * slots.numel()), slots=slots))

    def note_weight(self, name: str, macs: float, weight: Tensor) -> None:
        """Note multiplications of the whole batch that grow as the weight does; it may be the model's own or not."""
        owner, per_sample = self.owner(weight), macs / self.samples
        if owner is None:  # a weight that is computed, of a layer that cannot grow
            self.operations.append(Operation(name, per_sample))
        else:
            self.operations.append(Operation(name, per_sample / weight.numel(), weight=owner))

    def note_products(self, name: str, macs: float) -> None:
        """Note multiplications of the whole batch whose number does not depend on channels that can be split."""
        self.operations.append(Operation(name, macs / self.samples))

    def add_layer(self, kind: str, parameters: Iterable[str | None], axes: list[Axis]) -> None:
        """Note one use of a module's parameters; a second use of the same ones refuses everything they touch."""
        name = axes[0].tensor.rpartition(".")[0]
        names = list(dict.fromkeys(axis.tensor for axis in axes))
        self.layers.append(Layer(name, kind, tuple(p for p in parameters if p), tuple(axes)))
        shared = next((n for n in names if n in self._shared), None)
        twice = shared or next((n for n in names if n in self._used), None)
        self._used.update(names)
        if twice is not None:
            again = (a.slots for layer in self.layers for a in layer.axes if layer.name == name or a.tensor in names)
            self.refuse(again, f"the parameter {twice} is used more than once")

    def note_elsewhere(self, name: str, given: Iterable[Tensor], layers: int) -> None:
        """Note the model's own tensors among those given to a function that are in none of the layers from a number on.

        The rule of the function has understood what it does with the others.
        """
        owners = [owner for tensor in given if (owner := self.owner(tensor)) is not None]
        if owners:
            understood = {axis.tensor for layer in self.layers[layers:] for axis in layer.axes}
            self.elsewhere.update((owner, name) for owner in owners if owner not in understood)

    def close(self, outputs: list[Tensor]) -> None:
        """Refuse the channels of the network's outputs, and of parameters that were used without a rule for it."""
        self.outputs = outputs
        self.refuse(map(self.labels, outputs), "it is an output of the network")
        for axis in (axis for layer in self.layers for axis in layer.axes if axis.tensor in self.elsewhere):
            self.refuse([axis.slots], f"the parameter {axis.tensor} also enters {self.elsewhere[axis.tensor]}")

    def unreached(self) -> list[str]:
        """Return the modules with parameters that no function was given."""
        seen = {axis.tensor for layer in self.layers for axis in layer.axes} | self.elsewhere.keys()
        missed = (name for name, tensor in self.parameters.items() if seen.isdisjoint(self._owners[id(tensor)]))
        return list(dict.fromkeys(name.rpartition(".")[0] for name in missed))
