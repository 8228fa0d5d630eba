"""Find the channel graph of a model by following its channels through one example run.

Every tensor of the run may carry *labels*: an int64 tensor that broadcasts to it and says which channel each element
belongs to (-1: none). A layer with a weight reads the labels of its input (it is their consumer) and gives its output
fresh ones (it is their producer); element-wise functions hand labels on, and where two labelled tensors meet, their
channels become one. Whatever has no rule seals the channels that enter it: they are refused, with the reason.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import Axis, EqualParts, Layer, Operation
from nni_s3d.growth.graph.functions import DROPOUTS, canonical_name
from nni_s3d.growth.graph.labels import strands
from nni_s3d.growth.graph.union_find import UnionFind
from nni_s3d.growth.modules import call, check_device, evaluation_mode, tensors

_READS_VALUES = {"item", "tolist", "numpy", "array", "bool", "int", "float", "setitem"}
# Functions that may return what they were given, and never change it.
_RETURNS_IT = {
    *"contiguous to float double half bfloat16 type type_as flatten reshape view squeeze unsqueeze expand".split(),
    *("expand_as", *DROPOUTS),
}
_READS_NO_VALUES = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}
_NO_LABELS: tuple[Tensor | None, Tensor | None] = (None, None)
Rule = Callable[..., Any]


@dataclass(frozen=True)
class FunctionCall:
    """The function that a rule is asked about."""

    name: str  # without its module, see `canonical_name`
    func: Callable[..., Any]
    shapes: dict[int, torch.Size]  # of the labelled tensors among its arguments before it ran, by id


def registry() -> tuple[dict[str, Rule], Callable[..., Callable[[Rule], Rule]]]:
    """Return an empty table of rules, and a decorator that enters a rule under the names of functions."""
    table: dict[str, Rule] = {}

    def rule(*names: str) -> Callable[[Rule], Rule]:
        def enter(function: Rule) -> Rule:
            table.update(dict.fromkeys(names, function))
            return function

        return enter

    return table, rule


class Tracer(TorchFunctionMode):
    """Follows the channels of one model through one run."""

    def __init__(self, model: nn.Module, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        self.rules = rules
        self.model = model
        self.owners: dict[int, list[str]] = {}
        self.parameters: dict[str, nn.Parameter] = {}  # each under its first name
        for path, module in model.named_modules(remove_duplicate=False):
            prefix = f"{path}." if path else ""
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in self.owners:
                    self.parameters[prefix + name] = parameter
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    self.owners.setdefault(id(tensor), []).append(prefix + name)
        self._shared = {name for names in self.owners.values() if len(names) > 1 for name in names}
        self.same = UnionFind()
        self.refusals: list[tuple[Tensor, str]] = []  # channels and the reason; of several reasons the first one counts
        self.layers: list[Layer] = []
        self.operations: list[Operation] = []
        self.equal_parts: list[EqualParts] = []
        self.used: set[str] = set()  # parameters and buffers of layers
        self.elsewhere: dict[str, str] = {}  # parameters and buffers that also enter a function without a rule for them
        self.samples = 1
        self.outputs: list[Tensor] = []
        # The run's tensors are kept alive so that no two of them ever share an id.
        self._labels: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._by_storage: dict[int, list[Tensor]] = {}
        self._asked: set[int] = set()

    def run(self, example_inputs: object, training: bool = False) -> None:
        """Run the model on the inputs, in evaluation mode or in the mode that it is in, and note what is seen."""
        inputs = tensors(example_inputs)
        if not inputs or inputs[0].dim() == 0:
            raise ModelError("example_inputs: expected at least one tensor with a batch dimension, got none")
        if inputs[0].shape[0] == 0:
            raise ModelError("example_inputs: expected at least one sample, got none")
        for name, parameter in self.parameters.items():
            if isinstance(parameter, UninitializedParameter):
                raise ModelError(f"{name}: expected a parameter with a shape, got a lazy one; run the model once")
        check_device(self.model, example_inputs, "example_inputs")
        self.samples = inputs[0].shape[0]
        with nullcontext() if training else evaluation_mode(self.model), torch.no_grad():
            try:
                with self:
                    outputs = call(self.model, example_inputs)
            except Exception as error:
                where = _innermost(self.model, error)
                raise ModelError(f"{where} fails on the example inputs: {error}") from error
        if not tensors(outputs):
            raise ModelError(f"model: expected tensors among its outputs, got {type(outputs).__name__}")
        self.outputs = tensors(outputs)
        for output in self.outputs:
            self.refuse([self.labels(output)], "it is an output of the network")
        for axis in (axis for layer in self.layers for axis in layer.axes if axis.tensor in self.elsewhere):
            self.refuse([axis.slots], f"the parameter {axis.tensor} also enters {self.elsewhere[axis.tensor]}")

    # -- what a rule works with --------------------------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        entering = tensors((args, kwargs))
        known, labelled = len(self.layers), [x for x in entering if self._labels.get(id(x), _NO_LABELS)[1] is not None]
        call = FunctionCall(canonical_name(func), func, {id(x): x.shape for x in labelled})
        out = func(*args, **kwargs)
        if call.name.startswith("new_") or call.name in _READS_NO_VALUES:  # they read a type and a device
            return out
        outputs = tensors(out)
        self._refuse_views(call.name, labelled, outputs)
        if outputs:
            found = self._apply_rule(call, out, args, kwargs, labelled)
            pairs = zip(outputs, found, strict=True) if isinstance(found, tuple) else ((o, found) for o in outputs)
            for output, labels in pairs:
                self._labels[id(output)] = (output, labels)
            understood = {axis.tensor for layer in self.layers[known:] for axis in layer.axes}
            owners = (self.owner(tensor) for tensor in entering)
            self.elsewhere.update({owner: call.name for owner in owners if owner and owner not in understood})
        elif call.name in _READS_VALUES:
            self.refuse_inputs(call.name, labelled)
        return out

    def _apply_rule(
        self, call: FunctionCall, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any], labelled: list[Tensor]
    ) -> Any:
        """Return the labels of what came out; arguments that no rule has asked about are refused."""
        given = {("dim" if key == "axis" else key): value for key, value in kwargs.items() if key != "out"}
        before = {id(x): self._labels[id(x)][1] for x in labelled}
        if call.name not in self.rules or kwargs.get("out") is not None:
            return self.refuse_inputs(call.name, labelled)
        self._asked = set()
        try:
            found = self.rules[call.name](self, call, out, *args, **given)
        except (TypeError, ValueError, IndexError, RuntimeError):  # arguments that the rule did not expect
            return self.refuse_inputs(call.name, labelled)
        self.refuse((before[id(x)] for x in labelled if id(x) not in self._asked), f"{call.name} takes it as an option")
        return found

    def _refuse_views(self, name: str, labelled: list[Tensor], outputs: list[Tensor]) -> None:
        """Refuse what is changed in place while another tensor looks at the same memory."""
        for tensor in outputs if name not in _RETURNS_IT else ():
            if any(tensor is x for x in labelled):
                place = tensor.untyped_storage().data_ptr()
                others = [x for x in self._by_storage.get(place, []) if x is not tensor]
                if others:
                    self.refuse_inputs(name, [tensor, *others], f"{name} changes it in place, and a view of it")
            else:
                self._by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)

    def labels(self, tensor: object) -> Tensor | None:
        """Return the labels of a tensor, or None if it carries no channels."""
        self._asked.add(id(tensor))
        return self._labels.get(id(tensor), _NO_LABELS)[1]

    def refuse(self, labels: Iterable[Tensor | None], reason: str) -> Tensor | None:
        """Refuse all these channels, for the first reason given; what comes out carries no labels."""
        for label in labels:
            if label is not None:
                self.refusals.append((label.flatten(), reason))
        return None

    def refuse_inputs(self, name: str, inputs: object, reason: str = "") -> Tensor | None:
        """Refuse the channels of all tensors that enter a function; what comes out carries no labels."""
        seen = [self.labels(tensor) for tensor in tensors(inputs)]
        return self.refuse(seen, reason or f"its channels enter {name}, which has no exact rule")

    def owner(self, tensor: Tensor | None) -> str | None:
        """Return the dotted name of a parameter or buffer of the model, None for any other tensor."""
        names = self.owners.get(id(tensor))
        return names[0] if names else None

    def along(self, tensor: Tensor, dim: int) -> Tensor | None:
        """Return the channel at each index of one dimension, or None if channels run along another one."""
        size, labels = tensor.shape[dim], self.labels(tensor)
        if labels is None:
            return torch.full((size,), -1)
        others = [n for d, n in enumerate(tensor.shape) if d not in (0, dim % tensor.dim())]
        # The labels of a single channel do not say which way it runs: along a dimension of size one, if there is one.
        elsewhere = labels.numel() == 1 and size > 1 and 1 in others
        if labels.numel() != labels.shape[dim] or elsewhere:
            return None
        return labels.reshape(-1).expand(size)

    def join(self, first: Tensor, second: Tensor) -> None:
        """Make the channels one that meet where two labels are laid over each other."""
        first, second = torch.broadcast_tensors(first, second)
        both = (first >= 0) & (second >= 0)
        self.same.union(first[both], second[both])

    def note_equal_parts(self, where: str, slots: Tensor, parts: int) -> None:
        """Note that these slots are cut into parts that must stay equally large."""
        if slots.numel() % parts:
            self.refuse([slots], f"{where} cuts its channels into unequal parts")
            return
        runs = strands(slots)
        if (slots.numel() // runs) % parts == 0:
            cut = slots.reshape(parts, -1, runs).transpose(1, 2).reshape(parts * runs, -1)
            self.equal_parts.append(EqualParts(where, cut))
        else:
            self.equal_parts.append(EqualParts(where, slots.reshape(parts, -1)))

    def activation_work(self, name: str, out: Tensor, labels: Tensor | None) -> None:
        """Note that an activation is applied to every element."""
        slots = torch.full((1,), -1) if labels is None else labels.flatten()
        self.operations.append(Operation(name, out.numel() // (self.samples * slots.numel()), slots=slots))

    def unreached(self) -> list[str]:
        """Return the modules with parameters that no function was given."""
        seen = {axis.tensor for layer in self.layers for axis in layer.axes} | self.elsewhere.keys()
        missed = (name for name, p in self.parameters.items() if seen.isdisjoint(self.owners[id(p)]))
        return list(dict.fromkeys(name.rpartition(".")[0] for name in missed))

    def add_layer(self, kind: str, parameters: Iterable[str | None], axes: list[Axis]) -> None:
        """Note one use of a module's parameters; a second use of the same ones refuses everything they touch."""
        name = axes[0].tensor.rpartition(".")[0]
        names = list(dict.fromkeys(axis.tensor for axis in axes))
        self.layers.append(Layer(name, kind, tuple(p for p in parameters if p), tuple(axes)))
        shared = next((n for n in names if n in self._shared), None)
        twice = shared or next((n for n in names if n in self.used), None)
        self.used.update(names)
        if twice is not None:
            again = (a.slots for layer in self.layers for a in layer.axes if layer.name == name or a.tensor in names)
            self.refuse(again, f"the parameter {twice} is used more than once")


def _innermost(model: nn.Module, error: BaseException) -> str:
    """Return the name of the innermost module of a model whose code an error came through."""
    names = {id(module): name for name, module in model.named_modules()}
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    inside = [names[id(owner)] for frame in frames if id(owner := frame.f_locals.get("self")) in names]
    return next((name for name in reversed(inside) if name), type(model).__name__)
