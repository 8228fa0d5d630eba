"""A table of rules: which one is asked about a function, and which of the function's arguments it knows about.

A rule says what a function does to the labels of its input. It takes the notes of the trace, the call that it is asked
about, what the function returned, and the arguments of the function. It returns the labels of what came out: None where
there are no channels, and a tuple for a tuple of tensors. Beside that it notes the layers and operations that it sees
and refuses the channels that it cannot follow. An error inside a rule is a bug, and comes out as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class TracedCall:
    """The call that a rule is asked about."""

    name: str  # of the function, see `canonical_name`
    func: Callable[..., Any]
    shapes: dict[int, torch.Size]  # of the labelled tensors among its arguments before it ran, by id
    macs: int = 0  # multiplications of the whole batch, for rules that do not count them


class Rule:
    """What functions of one kind do to the labels of their inputs.

    Args:
        function: the rule itself.
        reads: names of the arguments whose channels it follows or refuses; channels in any other one are refused.
        counts: whether it notes what the function multiplies; else the tracer counts and the call says it.
    """

    def __init__(self, function: Callable[..., Any], reads: Sequence[str] = ("input",), counts: bool = True) -> None:
        self.function, self.reads, self.counts = function, reads, counts
        signature = inspect.signature(function)
        arguments = list(signature.parameters.values())[3:]  # behind the notes, the call and its result
        self._signature = signature.replace(parameters=arguments)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments | None:
        """Return the arguments of a call by the rule's own names, None if it does not know them."""
        given = {("dim" if key == "axis" else key): value for key, value in kwargs.items() if key != "out"}
        if kwargs.get("out") is not None:
            return None
        try:
            return self._signature.bind(*args, **given)
        except TypeError:
            return None


def rule_table() -> tuple[dict[str, Rule], Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]]:
    """Return an empty table, and a decorator that enters a rule under the names of functions."""
    table: dict[str, Rule] = {}

    def rule(*names: str, reads: Sequence[str] = ("input",)) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def enter(function: Callable[..., Any]) -> Callable[..., Any]:
            table.update(dict.fromkeys(names, Rule(function, reads)))
            return function

        return enter

    return table, rule
