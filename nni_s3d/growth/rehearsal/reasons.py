"""Why a group cannot grow, in words that the author of the model understands, and what could be written instead."""

from __future__ import annotations

from typing import Any

from nni_s3d.errors import first_line
from nni_s3d.growth.graph.spots import Spot
from nni_s3d.growth.rehearsal.record import Place

DIFFERENT = "the model computes something else when it grows"
FAILS = "the model fails when it grows"
_FROM_SHAPES = "take widths from x.shape, or from an attribute of the module"
_SIZES = {"view", "reshape", "unflatten", "expand", "broadcast_to", "repeat", "tile"}


def of_call(name: str, place: Place, spot: Spot, error: Exception | None, other_numbers: bool) -> str:
    """Say why a call of the grown network fails, or returns other shapes than it should.

    Args:
        name: of the function.
        place: of the network before.
        spot: where it is called.
        error: what it raises, if it does.
        other_numbers: whether it is given other numbers than before; if not, they are written in the code.
    """
    head, what = DIFFERENT if error is None else FAILS, f"{name}{spot}"
    given = "" if other_numbers else _written_numbers(name, place)
    if given:
        return f"{head}: {what} is given {given}"
    if error is not None:
        instead = "write -1 for the width that grows" if name in _SIZES else _FROM_SHAPES
        return f"{head}: {first_line(error)} ({what}); {instead}"
    return f"{head}: {what} puts copies of a neuron where others belong; {_FROM_SHAPES}"


def of_refusal(name: str, place: Place, spot: Spot, reason: str, other_numbers: bool) -> str:
    """Say that channels are refused in the grown network; arguments as for `of_call`, and the reason there."""
    given = "" if other_numbers else _written_numbers(name, place)
    return f"{DIFFERENT}: {name}{spot} is given {given}" if given else f"{DIFFERENT}: {reason}"


def of_error(error: BaseException, spot: Spot) -> str:
    """Say what code of the model raises when it grows."""
    said = first_line(error) if str(error).strip() else type(error).__name__
    line = f", {spot.source}" if spot.source.startswith("assert") else ""
    return f"{FAILS}: {said} (raised{spot}{line}); does it hold a width as a number?"


def of_values(name: str, spot: Spot, numbers: bool) -> str:
    """Say that a call of the grown network returns other values; because it is given other numbers, perhaps."""
    why = (
        "uses a width as a number; write a constant in its place"
        if numbers
        else "gives other values; let it depend on no width"
    )
    return f"{DIFFERENT}: {name}{spot} {why}"


def of_random_numbers(name: str, spot: Spot, source: str) -> str:
    """Say that random numbers are drawn for every channel."""
    why = f"uses numbers that {source} draws at random for every channel, and a copy would draw others than its neuron"
    return f"{DIFFERENT}: {name}{spot} {why}; draw one for all channels"


def of_partner(name: str, spot: Spot, shape: tuple[int, ...], owner: str | None) -> str:
    """Say that channels meet a tensor that does not grow with them."""
    tensor = f"a tensor of shape {shape}" if owner is None else f"{owner}, of shape {shape},"
    return f"{FAILS}: {name}{spot} meets {tensor} which does not grow with it; take its sizes from a shape"


def of_another_way(name: str, spot: Spot) -> str:
    """Say that the grown network calls another function."""
    return f"{DIFFERENT}: {name}{spot} is not what is called there before; does a width choose the way?"


def _written_numbers(name: str, place: Place) -> str:
    """Name the sizes that a function is given as numbers, and what to write instead; nothing if it is given none."""
    args, kwargs = place.plain
    rest = [*args[1:], *kwargs.values()]
    if name in ("split", "split_with_sizes") and rest:
        return _sizes_of_split(rest[0], place)
    if name == "getitem" and any(isinstance(index, slice) for index in _flat(rest)):
        return f"the bounds {_index(rest[0])} as numbers; {_instead(place)}"
    if name == "narrow":
        return f"the bounds {tuple(rest[1:])} as numbers; {_instead(place)}"
    if name in _SIZES and rest:
        sizes = tuple(_flat(rest))
        return f"the sizes {sizes} as numbers; write -1 or x.shape[...] for the width"
    return ""


def _sizes_of_split(sizes: Any, place: Place) -> str:
    if isinstance(sizes, int):
        return f"the width {sizes} as a number; {_instead(place)}"
    return f"the widths {tuple(sizes)} as numbers; {_instead(place)}"


def _instead(place: Place) -> str:
    """Say what to write for a cut of a tensor into pieces: a chunk, if they are equally large."""
    found = [channels for channels in place.channels if channels is not None]
    sizes = {channels.size for channels in found}
    if len(found) > 1 and len(sizes) == 1 and found[0].size > 1:
        dim = max(range(found[0].ndim), key=lambda d: found[0].shape[d])
        return f"write chunk({len(found)}, {dim})"
    return "write chunk for equal parts, or one layer for each part"


def _index(index: Any) -> str:
    """Write an index as in the code: [:, :4]."""
    parts = index if isinstance(index, tuple) else (index,)
    return f"[{', '.join(map(_slice, parts))}]"


def _slice(part: Any) -> str:
    if not isinstance(part, slice):
        return "..." if part is ... else str(part)
    start, stop, step = ("" if bound is None else str(bound) for bound in (part.start, part.stop, part.step))
    return f"{start}:{stop}" + (f":{step}" if step else "")


def _flat(arguments: Any) -> list[Any]:
    return [x for argument in arguments for x in (argument if isinstance(argument, (tuple, list)) else [argument])]
