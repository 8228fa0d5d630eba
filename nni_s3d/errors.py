"""The errors that users see: one line that names the thing, what was expected and what was found."""

from __future__ import annotations

import os
import traceback

_LONGEST = 1000  # characters of a line


class S3DError(Exception):
    """Anything that a user of this package can mend; commands print it as one line and exit with 2."""


class ConfigError(S3DError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class ModelError(S3DError, ValueError):
    """A network cannot be traced, measured or split as asked."""


class DataError(S3DError, FileNotFoundError):
    """A data set is not where it was looked for."""


class StoreError(S3DError, RuntimeError):
    """A store holds something else than what was expected there."""


class DamageError(StoreError):
    """A file of a store is missing, damaged, or not the one that was written there; what it was can be made again."""


class DivergenceError(S3DError, ArithmeticError):
    """The weights of a network or its loss are no numbers any more."""


class ReportError(S3DError, RuntimeError):
    """An NNI experiment is not where it was looked for, or has nothing to report yet."""


def first_line(error: BaseException) -> str:
    """Return what another package's exception says, without the rest of its explanation."""
    return next(iter(str(error).strip().splitlines()), "no reason")


def place_of(error: BaseException) -> str:
    """Return where an exception was raised, as " (file.py:12)"; nothing if nobody knows."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""


def print_traceback(error: BaseException, wanted: bool = False) -> None:
    """Show where an error comes from, if that is wanted, here or by NNI_S3D_TRACEBACK=1."""
    if wanted or os.environ.get("NNI_S3D_TRACEBACK"):
        traceback.print_exception(error)


def one_line(said: object) -> str:
    """Return what an error or a name says on one line of a bearable length, without what would steer a terminal."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(said).split("\n")))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
