"""A table for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table_lines(
    titles: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = (), ruled: bool = False
) -> list[str]:
    r"""Return the lines of a table, every column as wide as its longest cell.

    Args:
        titles: of the columns.
        rows: one cell for every column.
        right: titles of the columns that are aligned to the right, as numbers are.
        ruled: whether a line of dashes stands below the titles.

    Examples:
        >>> print("\n".join(table_lines(("group", "width"), [("conv0", "8"), ("pw1", "16")], right=("width",))))
        group  width
        conv0      8
        pw1       16
    """
    lines = [titles, *rows]
    sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if ruled:
        lines.insert(1, ["-" * size for size in sizes])
    sides = [">" if title in right else "<" for title in titles]
    return [
        "  ".join(f"{cell:{side}{size}}" for cell, side, size in zip(line, sides, sizes, strict=True)).rstrip()
        for line in lines
    ]
