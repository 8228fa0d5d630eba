"""Where in the code of a model something happens: the module, and the line that its author wrote."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import nn

# The separator at the end tells PyTorch from torchvision.
_TORCH, _OURS = (f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))


@dataclass(frozen=True)
class Spot:
    """A place in the code of a model."""

    module: str  # the dotted name of the innermost module; empty for the model itself
    line: str = ""  # the file and the number of the line, where the code is not PyTorch's own
    source: str = ""  # and what is written there
    body: tuple[CodeType, int] | None = None  # the function that it is in, and the module or other object whose it is

    def __str__(self) -> str:
        return f" in {self.module or 'the model'}" + (f" ({self.line})" if self.line else "")


class Spots:
    """Finds places in the code of a model."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}

    def of_call(self) -> Spot:
        """Return where the function is called that is being followed."""
        return self._spot((frame, frame.f_lineno) for frame in _frames_of_the_model())

    def of_error(self, error: BaseException) -> Spot:
        """Return where an error was raised."""
        return self._spot(reversed(list(traceback.walk_tb(error.__traceback__))))

    def _spot(self, frames: Iterable[tuple[FrameType, int]]) -> Spot:
        """Return the place of the innermost of these frames, which come first."""
        spot, module = Spot(""), None
        for frame, line in frames:
            owner, file = frame.f_locals.get("self"), frame.f_code.co_filename
            module = self._names.get(id(owner)) if module is None else module
            if not spot.line and not file.startswith((_TORCH, _OURS)):
                source = linecache.getline(file, line).strip()
                spot = Spot("", f"{Path(file).name}:{line}", source, (frame.f_code, id(owner)))
        return replace(spot, module=module or "")


def _frames_of_the_model() -> Iterator[FrameType]:
    """Iterate over the frames between the code that follows the run and the code that has started it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
        yield frame
        frame = frame.f_back
