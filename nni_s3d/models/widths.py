"""Read the widths of a network from a sequence or a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nni_s3d.errors import ConfigError

Widths = Mapping[str, int] | Sequence[int]


def named_widths(widths: Widths | None, names: Sequence[str], default: Sequence[int]) -> dict[str, int]:
    """Return {layer: width} in the order of `names`.

    Args:
        widths: one width per layer, in order or by name; None for the defaults.
        names: the layers.
        default: their default widths.

    Raises:
        ConfigError: a layer is missing or unknown, or a width is not a whole number of at least 1.
    """
    if widths is None:
        widths = default
    if not isinstance(widths, Mapping):
        if len(widths) != len(names):
            raise ConfigError(f"widths: expected {len(names)} of them ({', '.join(names)}), got {len(widths)}")
        widths = dict(zip(names, widths, strict=True))
    for name in (*names, *widths):
        if name not in widths or name not in names:
            trouble = "missing" if name not in widths else "unknown"
            raise ConfigError(f"widths: {name!r} is {trouble}; expected {', '.join(names)}")
    for name, width in widths.items():
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ConfigError(f"widths: expected a whole number >= 1 for {name!r}, got {width!r}")
    return {name: widths[name] for name in names}
