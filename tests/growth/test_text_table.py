import pytest

from nni_s3d.growth.text_table import table_lines

TITLES = ("name", "n", "why")
ROWS = [("a", "10", ""), ("longer", "7", "no")]


def test_columns_are_as_wide_as_their_longest_cells():
    assert table_lines(TITLES, ROWS) == ["name    n   why", "a       10", "longer  7   no"]


def test_numbers_are_aligned_to_the_right_and_titles_ruled():
    lines = table_lines(TITLES, ROWS, right=("n",), ruled=True)
    assert lines == ["name     n  why", "------  --  ---", "a       10", "longer   7  no"]


def test_a_table_without_rows_has_its_titles():
    assert table_lines(TITLES, []) == ["name  n  why"]


def test_every_row_has_a_cell_for_every_column():
    with pytest.raises(ValueError, match="zip"):
        table_lines(TITLES, [("a", "10")])
