"""Colour, on terminals only; https://no-color.org turns it off."""

from __future__ import annotations

import os
from typing import TextIO

_RED = "\033[31m{}\033[0m"


def red(text: str, stream: TextIO) -> str:
    """Return a text in red where the stream is a terminal, and else as it is."""
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return _RED.format(text) if wanted else text
