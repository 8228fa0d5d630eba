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
        self._places: dict[tuple[int, tuple[str, ...]], list[int | str] | None] = {}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[Any]] | None:
        """Return the keywords under the rule's own names, and the arguments that it reads.

        None if it does not know such arguments: that depends on their number and their keywords alone.
        """
        if kwargs.get("out") is not None:
            return None
        keywords = {("dim" if name == "axis" else name): value for name, value in kwargs.items() if name != "out"}
        key = (len(args), tuple(keywords))
        if key not in self._places:
            self._places[key] = self._read_places(*key)
        places = self._places[key]
        if places is None:
            return None
        return keywords, [args[place] if isinstance(place, int) else keywords[place] for place in places]

    def _read_places(self, args: int, keywords: tuple[str, ...]) -> list[int | str] | None:
        """Return where the arguments that it reads are among so many and these keywords; None if it has no such."""
        try:
            bound = self._signature.bind(*range(args), **{name: name for name in keywords}).arguments
        except TypeError:
            return None
        places: list[int | str] = []
        for name in self.reads:
            place = bound.get(name, ())  # several for a name that takes all the rest
            places += place if isinstance(place, tuple) else place if isinstance(place, dict) else [place]
        return places


def rule_table() -> tuple[dict[str, Rule], Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]]:
    """Return an empty table, and a decorator that enters a rule under the names of functions."""
    table: dict[str, Rule] = {}

    def rule(
        *names: str, reads: Sequence[str] = ("input",), counts: bool = True
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def enter(function: Callable[..., Any]) -> Callable[..., Any]:
            table.update(dict.fromkeys(names, Rule(function, reads, counts)))
            return function

        return enter

    return table, rule
