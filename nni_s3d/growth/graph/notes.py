"""The notes of a trace: rules read the labels of tensors off them, and write down what they see.

The labels of a tensor are an int64 tensor that broadcasts to it and says to which channel each element belongs, `NONE`
where it belongs to none. A tensor without any channel has None for labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.averages import SeenAverages
from nni_s3d.growth.graph.channels import Axis, EqualParts, Layer, Operation, Role
from nni_s3d.growth.graph.filled import FilledTensors
from nni_s3d.growth.graph.functions import LENDS_SHAPE
from nni_s3d.growth.graph.labels import NONE, SpreadLabels, evenly_cut
from nni_s3d.growth.graph.layer_notes import Block, LayerNotes
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.products_of_channels import ProductsOfChannels
from nni_s3d.growth.graph.refusals import NO_RULE, OUTPUT, Refusals
from nni_s3d.growth.graph.row_norm import RowNorm
from nni_s3d.growth.graph.samples import SampleSizes
from nni_s3d.growth.graph.union_find import UnionFind
from nni_s3d.growth.modules import tensors


class Notes:
    """The notes that a tracer takes of one run of a model.

    Attributes:
        parameters: those of the model that runs, each under its first name.
        buffers: its buffers, likewise.
        own: both of them, and what is made of them alone.
        same: which channels were found to be one.
        refusals: channels that cannot be split, and why.
        operations: what was computed for the whole batch; when the notes are closed, for one sample.
        equal_parts: where channels were cut into parts.
        averages: where channels were averaged.
        products: where products of two tensors were summed over channels.
        reshapes: labels that run along several dimensions, and the function that laid them out so.
        cuts: how many functions have cut channels, or positions of them, into pieces.
        elsewhere: {parameter or buffer: a function that took it without a rule for that}.
        uncounted: in order, functions that may multiply and whose MACs nobody knows.
        sample_sizes: what layers take for a sample.
        sizes_of_values: whether the values of tensors decide how much is computed, as a detector's scores do.
        filled, outputs: tensors that hold one number, and those that the model returned.
        in_order: whether no function changed the order of channels, or left some of them out.
        channels_pass: whether channels pass weights that work along positions, or the rows of these are channels.
        could_pass: whether the run came to such a weight.
    """

    def __init__(self, model: nn.Module, channels_pass: bool = True) -> None:
        self.channels_pass, self.could_pass = channels_pass, False
        self.same, self.refusals = UnionFind(), Refusals()
        self.operations: list[Operation] = []
        self.equal_parts: list[EqualParts] = []
        self.averages, self.products = SeenAverages(), ProductsOfChannels()
        self.reshapes: list[tuple[str, Tensor]] = []
        self.cuts = 0
        self.elsewhere: dict[str, str] = {}
        self.uncounted: dict[str, None] = {}
        self.sample_sizes = SampleSizes()
        self.sizes_of_values, self.in_order = False, True
        self.filled = FilledTensors()
        self.outputs: list[Tensor] = []
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
        shared = (name for names in self._owners.values() if len(names) > 1 for name in names)
        self._layers = LayerNotes(self.same, self.refusals.add, shared)
        self.own = OwnTensors(self.parameters | self.buffers)
        self._followers: dict[str, Axis] = {}  # by parameter or buffer
        self._understood: set[str] = set()  # what the rule of the function that runs has followed
        self._reached: set[str] = set()  # what functions have taken
        # The run's tensors are kept alive so that no two of them ever share an id.
        self._labels: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._spread = SpreadLabels()

    @property
    def layers(self) -> list[Layer]:
        """Parameters with channels along a dimension, and those that belong to them, in the order of the run."""
        return self._layers.layers

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
            return self._spread.slots(labels)
        others = [n for d, n in enumerate(tensor.shape) if d not in (0, dim % tensor.dim())]
        # The labels of a single channel do not say which way it runs: along a dimension of size one, if there is one.
        elsewhere = labels.numel() == 1 and size > 1 and 1 in others
        if labels.numel() != labels.shape[dim] or elsewhere:
            return None
        return labels.reshape(-1).expand(size)

    def spread(self, slots: Tensor, dims: int, dim: int) -> Tensor:
        """Return the labels of a tensor with so many dimensions whose channels (n,) run along one of them."""
        return self._spread.labels(slots, dims, dim)

    def refuse(self, labels: Iterable[Tensor | None], met: str, instead: str) -> Tensor | None:
        """Refuse all these channels, see `Refusals.add`; what comes out carries no labels."""
        self.refusals.add(labels, met, instead)
        return None

    def refuse_inputs(self, name: str, inputs: object, met: str = "", instead: str = NO_RULE) -> Tensor | None:
        """Refuse the channels of all tensors that enter a function, as `refuse` does."""
        labels = [self.labels(tensor) for tensor in tensors(inputs)]
        return self.refuse(labels, met or f"its channels enter {name}, which has no exact rule", instead)

    def join(self, first: Tensor, second: Tensor) -> None:
        """Make the channels one that meet where two labels are laid over each other."""
        self.same.union(*torch.broadcast_tensors(first, second))

    def note_equal_parts(self, where: str, slots: Tensor, parts: int, cut: int | None = None) -> None:
        """Note that these slots (n,) are cut into parts that must stay equally large; `cut` as for `EqualParts`."""
        if slots.numel() % parts:
            self.refuse(
                [slots], f"{where} cuts its channels into unequal parts", f"make the width a multiple of {parts}"
            )
            return
        self.equal_parts.append(EqualParts(where, evenly_cut(slots, parts), cut=cut))

    def note_activation(self, name: str, out: Tensor, labels: Tensor | None) -> None:
        """Note that an activation is applied to every element."""
        slots = torch.full((1,), NONE) if labels is None else self._spread.slots(labels)
        self.operations.append(Operation(name, out.numel() / slots.numel(), slots=slots))

    def note_weight(self, name: str, macs: float, weight: Tensor) -> None:
        """Note multiplications of the whole batch that grow as the weight does; it may be the model's own or not."""
        stands_for_it = self.own.stands_for(weight)
        if stands_for_it is not None:  # else a weight of a layer that cannot grow
            macs /= self.own.tensor(stands_for_it).numel()
        self.operations.append(Operation(name, macs, weight=stands_for_it))

    def note_products(self, name: str, macs: float, labels: Tensor | None = None) -> None:
        """Note multiplications of the whole batch, which grow as the channels of these labels do, or never."""
        slots = None if labels is None else labels.flatten()
        self.operations.append(Operation(name, macs if slots is None else macs / slots.numel(), slots=slots))

    def rows(self, weight: str, size: int, block: Block | None = None) -> Tensor:
        """Return the channels (size,) that the rows of a weight produce, or those of one block of a stack."""
        return self._layers.rows(weight, size, block)

    def add_layer(
        self,
        kind: str,
        parameters: Iterable[str | None],
        axes: list[Axis],
        norm: RowNorm | None = None,
        block: Block | None = None,
    ) -> None:
        """Note one use of a module's parameters; of a stack the axes have the slots of one block."""
        name = axes[0].tensor.rpartition(".")[0].partition("parametrizations.")[0].removesuffix(".")
        self._understood.update(axis.tensor for axis in axes)
        self._layers.add(Layer(name, kind, tuple(p for p in parameters if p), tuple(axes), norm), block)

    def add_followers(
        self, kind: str, slots: Tensor, entries: Iterable[tuple[str, int | None]], block: Block | None = None
    ) -> None:
        """Note tensors with an entry for each of these channels; those that follow channels already make them one.

        Args:
            kind: of the layer.
            slots: (n,) the channel of each entry.
            entries: names of parameters and buffers, and the dimension of each; None for one number for all channels.
            block: of all of them, if they are stacks.
        """
        by_module: dict[str, list[Axis]] = {}
        for name, dim in entries:
            self._understood.add(name)
            before = self._followers.get(name)
            if dim is None:
                continue
            if block is not None:
                axes = [Axis(name, dim, Role.FOLLOW, slots)]
                self.add_layer(kind, {name} & self.parameters.keys(), axes, block=block)
                continue
            if before is not None and before.dim == dim and before.slots.shape == slots.shape:
                self.join(before.slots, slots)
                continue
            self._followers[name] = Axis(name, dim, Role.FOLLOW, slots)
            by_module.setdefault(name.rpartition(".")[0], []).append(self._followers[name])
        for axes in by_module.values():
            self.add_layer(kind, [axis.tensor for axis in axes if axis.tensor in self.parameters], axes)

    def note_elsewhere(self, name: str, given: Sequence[Tensor]) -> None:
        """Note the model's own tensors among those given to a function whose rule has not followed them."""
        given = given[:1] if name in LENDS_SHAPE else given
        for tensor in given:
            owners, recipe = self.own.behind(tensor), self.own.recipe(tensor)
            user = name if recipe is None or self.own.sources(tensor) else recipe.name
            self.elsewhere.update((owner, user) for owner in owners if owner not in self._understood)
            self._reached.update(owners)
        if given:
            self._understood.clear()

    def close(self, inputs: object, outputs: object) -> None:
        """Refuse the channels of the network's outputs, and of parameters that were used without a rule for it.

        What was computed is from now on per sample.
        """
        self._layers.complete(self.equal_parts, self.reshapes)
        self.outputs = tensors(outputs)
        self.refusals += self.products.close(self.labels, self.layers, self.own, self.parameters, self.outputs)
        self.averages.note_unread(self.products.unread)
        self.refuse(map(self.labels, self.outputs), OUTPUT, "")
        self.note_elsewhere("the outputs of the network", self.outputs)
        samples = self.sample_sizes.count(inputs, outputs)
        self.operations = [replace(operation, repeats=operation.repeats / samples) for operation in self.operations]
        for axis in (axis for layer in self.layers for axis in layer.axes if axis.tensor in self.elsewhere):
            met = f"the parameter {axis.tensor} also enters {self.elsewhere[axis.tensor]}"
            self.refuse([axis.slots], met, "give that a parameter of its own")

    def unreached(self) -> list[str]:
        """Return the modules with parameters that no function was given."""
        missed = [name for name in self.parameters if name not in self._reached]
        return list(dict.fromkeys(name.rpartition(".")[0] for name in missed))

    def not_followed(self) -> list[str]:
        """Return the matrices and filters that no layer has, each with the function that took it."""
        followed = {axis.tensor for layer in self.layers for axis in layer.axes}
        left = [name for name in self.parameters if name in self.elsewhere and name not in followed]
        large = [name for name in left if sum(size > 1 for size in self.parameters[name].shape) > 1]
        return [f"{name} ({self.elsewhere[name]})" for name in large]
