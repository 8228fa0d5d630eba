"""Real text that comes with Python: the help on language topics, pydoc_data.topics, some 460,000 characters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_HELD_OUT = 0.1  # of the text for validation, and as much for the test


@dataclass(frozen=True)
class Text:
    """A text as numbers of characters, in three parts that follow each other."""

    train: Tensor
    validation: Tensor
    test: Tensor
    characters: int  # how many different ones there are


def read_text() -> Text:
    """Return the help of this Python."""
    from pydoc_data.topics import topics  # type: ignore[import-untyped, unused-ignore]

    whole = "\n".join(topics[name] for name in sorted(topics))
    alphabet = {character: number for number, character in enumerate(sorted(set(whole)))}
    numbers = torch.tensor([alphabet[character] for character in whole])
    held_out = round(_HELD_OUT * len(numbers))
    train, validation, test = numbers.split([len(numbers) - 2 * held_out, held_out, held_out])
    return Text(train, validation, test, len(alphabet))


def drawn(part: Tensor, count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (count, length) from random places of a text."""
    starts = torch.randint(len(part) - length, (count, 1), generator=torch.Generator().manual_seed(seed))
    places = starts + torch.arange(length)
    return part[places], part[places + 1]


def whole(part: Tensor, count: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over all of a text, in batches of inputs and targets (at most count, length); an odd end is left out."""
    full = (len(part) - 1) // length * length
    inputs, targets = part[:full].reshape(-1, length), part[1 : full + 1].reshape(-1, length)
    yield from zip(inputs.split(count), targets.split(count), strict=True)
