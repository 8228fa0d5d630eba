"""Follow the channels of a model through one example run.

A layer with a weight reads the labels of its input (it is their consumer) and gives its output fresh ones (it is their
producer). Element-wise functions hand labels on, and where two labelled tensors meet, their channels become one. A
function without a rule refuses the channels that enter it, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.autograd_functions import announced_functions
from nni_s3d.growth.graph.calls import CallLog
from nni_s3d.growth.graph.functions import READS_SHAPES, canonical_name
from nni_s3d.growth.graph.in_place import ChangesInPlace
from nni_s3d.growth.graph.kernel_products import KernelProduct
from nni_s3d.growth.graph.labels import growing_dim
from nni_s3d.growth.graph.macs import MacCounter
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rewriting import Rewritten, as_linear, as_product
from nni_s3d.growth.graph.rule_table import Rule, TracedCall
from nni_s3d.growth.graph.script_calls import script_calls_announced
from nni_s3d.growth.graph.spots import Spots
from nni_s3d.growth.graph.stacked_products import StackedProduct
from nni_s3d.growth.graph.written_kinks import WRITTEN, WrittenKinks, masks_among
from nni_s3d.growth.modules import call, check_device, evaluation_mode, innermost, tensors

_READS_VALUES = {"item", "tolist", "numpy", "array", "bool", "int", "float", "setitem"}
_READS_NO_VALUES = {f"{what}_like" for what in ("zeros", "ones", "empty", "full", "rand", "randn", "randint")}
_FILLS = {"zeros_like", "ones_like", "full_like"}
_SIZES_OF_VALUES = {"nonzero", "argwhere", "masked_select", "unique", "nms", "item", "tolist", "int"}


class Tracer(TorchFunctionMode):
    """Runs a model once and takes notes of what every function does to the channels.

    Args:
        model: any module.
        rules: {name of a function: its rule}.
        channels_pass: see `Notes`.
    """

    def __init__(self, model: nn.Module, rules: Mapping[str, Rule], channels_pass: bool = True) -> None:
        super().__init__()
        self.notes, self.log = Notes(model, channels_pass), CallLog(model)
        self._model, self._rules, self._spots = model, rules, Spots(model)
        self._kinks = WrittenKinks()
        self._changes = ChangesInPlace()
        self._bug: Exception | None = None  # an error inside a rule
        self.rewrites = False  # whether the calls are not the model's, but stand for one of them

    def run(self, example_inputs: object, training: bool = False) -> Notes:
        """Return the notes of a run on these inputs, in evaluation mode or in the mode that the model is in.

        Raises:
            ModelError: the inputs are no tensors with samples, the model has lazy parameters, lies on another device,
                fails, or returns no tensor.
        """
        self._check(example_inputs)
        with nullcontext() if training else evaluation_mode(self._model), torch.no_grad():
            outputs = self._outputs(example_inputs)
        if not tensors(outputs):
            raise ModelError(f"model: expected tensors among its outputs, got {type(outputs).__name__}")
        self.notes.refusals.spot = str
        self._refuse_masks("an output of the network", tensors(outputs))
        self.notes.close(example_inputs, outputs)
        return self.notes

    def _check(self, example_inputs: object) -> None:
        """Raise ModelError unless the model can be run on these inputs."""
        inputs = [x for x in tensors(example_inputs) if x.dim()]
        if not inputs:
            raise ModelError("example_inputs: expected at least one tensor with a batch dimension, got none")
        if inputs[0].shape[0] == 0:
            raise ModelError("example_inputs: expected at least one sample, got none")
        for name, parameter in self.notes.parameters.items():
            if isinstance(parameter, UninitializedParameter):
                raise ModelError(f"{name}: expected a parameter with a shape, got a lazy one; run the model once")
        check_device(self._model, example_inputs, "example_inputs")

    def _outputs(self, example_inputs: object) -> Any:
        try:
            with announced_functions(), script_calls_announced(), self:
                self.notes.refusals.spot = self._spots.of_call
                outputs = call(self._model, example_inputs)
        except Exception as error:
            if self._bug is not None:
                raise self._bug from None
            where = innermost(self._model, error)
            raise ModelError(f"{where} fails on the example inputs: {error}") from error
        if self._bug is not None:  # which the model's own code has caught
            raise self._bug
        return outputs

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, canonical_name(func)
        if name in READS_SHAPES:
            return func(*args, **kwargs)
        given = tensors((args, kwargs))
        if not self.rewrites:
            self.notes.averages.note_call(name)
        if (product := self._product_for(func, name, args, kwargs)) is not None:
            return self._rewritten(name, given, product)
        self._refuse_masks(name, given)
        labelled = [x for x in given if self.notes.labels(x) is not None]
        for pair, met in self._changes.read(labelled):
            self.notes.refuse_inputs(name, pair, met, "write it out of place")
        shapes = {id(x): x.shape for x in labelled}
        rule = self._rules.get(name)
        bound = None if rule is None else rule.bind(args, kwargs)
        counts = rule is not None and bound is not None and rule.counts
        out, macs = (func(*args, **kwargs), 0) if counts else self._counted(name, func, args, kwargs)
        outputs = [out] if isinstance(out, Tensor) else tensors(out)
        if not self.rewrites:
            self.log.add(name, given, outputs)
        self.notes.sizes_of_values |= name in _SIZES_OF_VALUES or _picks(name, args, kwargs)
        self.notes.filled.follow(name, args, outputs)
        self.notes.products.reach.follow(given, outputs)
        self._kinks.follow(name, args, kwargs, out)
        if name.startswith("new_") or name in _READS_NO_VALUES:  # they read a type and a device
            return self._filled(name, labelled, out)
        if outputs:
            self._changes.note(name, labelled, outputs)
            followed = None
            if rule is None or bound is None:
                self._refuse_unknown(name, func, labelled, macs)
            elif self._kinks.mask(out) is None:  # of which what takes it will tell
                followed = self._follow(rule, TracedCall(name, func, shapes, macs), out, args, bound[0])
                self._refuse_options(name, labelled, bound[1])
            self._label(name, given, outputs, followed)
            if self.notes.own.are_among(given) and not self.notes.own.follow(func, args, kwargs, out):
                self.notes.note_elsewhere(name, given)
        elif name in _READS_VALUES:
            self.notes.refuse_inputs(name, labelled)
        return out

    def _label(self, name: str, given: list[Tensor], outputs: list[Tensor], followed: Any) -> None:
        """Give what a function returned its labels, and note the call if it has to do with channels."""
        labels = followed if isinstance(followed, tuple) else [followed] * len(outputs)
        for output, label in zip(outputs, labels, strict=True):
            self.notes.label(output, label)
        if any(self.notes.labels(x) is not None for x in (*given, *outputs)):
            self.notes.products.note_call(name, given, outputs)

    def _refuse_masks(self, name: str, given: Sequence[Tensor]) -> None:
        """Refuse the channels that comparisons among these tensors were made of, but where these stay such."""
        if not self._kinks.keeps_masks(name):
            compared = masks_among(self._kinks, given)
            self.notes.refuse_inputs(name, compared, f"{name} takes a comparison of its channels", WRITTEN)

    def _refuse_unknown(self, name: str, func: Callable[..., Any], labelled: list[Tensor], macs: int) -> None:
        """Refuse the channels that enter a function without a rule, and note its cost."""
        self.notes.refuse_inputs(name, labelled, *getattr(func, "refusal", ()))
        if macs:
            self.notes.note_products(name, macs)

    def _filled(self, name: str, labelled: list[Tensor], out: Any) -> Any:
        """Return a fresh tensor, with the channels of the one whose shape it has if it has one number for all."""
        if name in _FILLS and labelled and out.shape == labelled[0].shape:
            self.notes.label(out, self.notes.labels(labelled[0]))
        return out

    def _product_for(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Tensor] | None:
        """Return other functions that compute what a call does, if they say it more plainly: a product, or a kink."""
        if (ramp := self._kinks.as_ramp(func, name, args, kwargs)) is not None:
            return ramp
        linear = as_linear(name, args, kwargs, self.notes.own)
        if isinstance(linear, KernelProduct) and self.notes.along(linear.input, linear.dim) is None:
            linear = linear.turned()
        if linear is not None and self._sums_over_channels(linear):
            return linear
        return as_product(name, args, kwargs)

    def _sums_over_channels(self, linear: Rewritten | StackedProduct | KernelProduct) -> bool:
        """Whether the channels of what a product reads, if there are any, run along the dimension that it sums over."""
        if not isinstance(linear, StackedProduct):
            return self.notes.along(linear.input, linear.dim) is not None
        labels = self.notes.labels(linear.input)
        if labels is None:
            return True
        summed, along = (None if dim is None else dim % labels.dim() for dim in (linear.dim, linear.along))
        varying = {dim for dim, size in enumerate(labels.shape) if size > 1}
        return growing_dim(labels) == summed and varying <= {summed, along}

    def _rewritten(self, name: str, given: list[Tensor], product: Callable[[], Tensor]) -> Tensor:
        """Compute a product by other functions, and follow these; the log has the call that the model makes."""
        self.rewrites = True
        try:
            with self:
                out = product()
        finally:
            self.rewrites = False
        self.log.add(name, given, [out])
        return out

    def _follow(self, rule: Rule, traced: TracedCall, out: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Return the labels of what came out, as the rule has them."""
        try:
            return rule.function(self.notes, traced, out, *args, **keywords)
        except Exception as error:
            self._bug = error
            raise

    def _refuse_options(self, name: str, labelled: list[Tensor], read: list[Any]) -> None:
        """Refuse the channels of arguments that a rule takes to have none."""
        if all(any(x is one for one in read) for x in labelled):  # as a rule
            return
        known = {id(x) for x in tensors(read)}
        options = [self.notes.labels(x) for x in labelled if id(x) not in known]
        self.notes.refuse(options, f"{name} takes it as an option", "let no layer with a width compute options")

    def _counted(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, int]:
        """Run a function and return what it returns, and its MACs."""
        if getattr(func, "__name__", "") == "__get__":  # an attribute such as the shape
            return func(*args, **kwargs), 0
        with MacCounter() as counter:
            out = func(*args, **kwargs)
        if counter.unknown:
            self.notes.uncounted.setdefault(name)
        # The norm of a weight, as spectral normalisation takes it, is no work on a sample.
        of_weights = counter.of_vectors and self.log.is_of_parameters(tensors((args, kwargs)))
        return out, counter.macs - counter.of_vectors if of_weights else counter.macs


def _picks(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether elements are picked where a condition holds: where(condition), x[mask]."""
    if name not in ("where", "getitem"):
        return False
    return len(args) + len(kwargs) == 1 or any(x.dtype == torch.bool for x in tensors(args[1:]) if len(args) == 2)
