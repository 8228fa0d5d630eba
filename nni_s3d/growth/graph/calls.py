"""The calls of a run, to see whether the run of a grown network makes the same ones.

If it does, and no call changes the order of channels, then the channels of the grown network lie as the copies were
put: nothing needs to be followed a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nni_s3d.growth.graph.autograd_functions import announced_functions
from nni_s3d.growth.graph.functions import READS_SHAPES, canonical_name
from nni_s3d.growth.graph.script_calls import script_calls_announced
from nni_s3d.growth.modules import call, evaluation_mode, tensors

Call = tuple[str, tuple[object, ...]]
"""The name of a function, and where its tensors came from: a parameter's or buffer's name, the number of an earlier
call, or None."""


class CallLog:
    """Takes down the calls of a run.

    Attributes:
        calls: in their order.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[Call] = []
        named = (*model.named_parameters(), *model.named_buffers())
        self._sources: dict[int, tuple[Tensor, object]] = {id(tensor): (tensor, name) for name, tensor in named}

    def source(self, tensor: Tensor) -> object:
        """Return where a tensor came from, see `Call`."""
        return self._sources.get(id(tensor), (None, None))[1]

    def is_of_parameters(self, given: Sequence[Tensor]) -> bool:
        """Return whether tensors were computed from parameters and buffers alone."""
        sources, seen = [self.source(tensor) for tensor in given], set[object]()
        while sources:
            source = sources.pop()
            if source is None:
                return False
            if isinstance(source, int) and source not in seen:
                seen.add(source)
                sources += self.calls[source - 1][1]
        return True

    def add(self, name: str, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Take down a call with these tensors among its arguments and among what it returned."""
        self.calls.append((name, tuple(map(self.source, given))))
        for tensor in outputs:  # kept alive so that no two of them ever share an id
            self._sources[id(tensor)] = (tensor, len(self.calls))


class _Listener(TorchFunctionMode):
    def __init__(self, log: CallLog, before_use: Callable[[str], None]) -> None:
        super().__init__()
        self._log, self._before_use = log, before_use

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, canonical_name(func)
        if name in READS_SHAPES:
            return func(*args, **kwargs)
        given = tensors((args, kwargs))
        for source in map(self._log.source, given):
            if isinstance(source, str):
                self._before_use(source)
        out = func(*args, **kwargs)
        self._log.add(name, given, tensors(out))
        return out


def calls_and_outputs(
    model: nn.Module, inputs: object, before_use: Callable[[str], None] = lambda name: None
) -> tuple[list[Call], list[Tensor]]:
    """Run a model in evaluation mode without gradients; return its calls and the tensors that it puts out.

    Args:
        model: any module.
        inputs: as for `trace`.
        before_use: called with the name of a parameter or buffer whenever a function is about to take it.
    """
    log = CallLog(model)
    followed = _Listener(log, before_use)
    with evaluation_mode(model), torch.no_grad(), announced_functions(), script_calls_announced(), followed:
        outputs = call(model, inputs)
    return log.calls, tensors(outputs)
