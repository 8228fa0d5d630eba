"""The errors that users see: one line that names the thing, what was expected and what was found."""

from __future__ import annotations


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
