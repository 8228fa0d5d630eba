from fractions import Fraction

import pytest
import torch
from torch import nn

from nni_s3d.growth.rehearsal.marked import Marked, Source, mark_attributes, marks

WIDTH, PATHS = Source("block", "width", None), Source("block", "paths", None)
EIGHT, TWO = Marked.of(8, {WIDTH: Fraction(1)}), Marked.of(2, {PATHS: Fraction(1)})


@pytest.mark.parametrize(
    ("function", "value", "ratios"),
    [
        (lambda: 3 * EIGHT, 24, {WIDTH: 3}),
        (lambda: EIGHT * 3 // 2, 12, {WIDTH: Fraction(3, 2)}),
        (lambda: EIGHT // 3, 2, {WIDTH: None}),
        (lambda: -EIGHT, -8, {WIDTH: -1}),
        (lambda: EIGHT + 1, 9, {WIDTH: None}),
        (lambda: 10 - EIGHT, 2, {WIDTH: None}),
        (lambda: EIGHT - TWO, 6, {WIDTH: None, PATHS: None}),
        (lambda: EIGHT * TWO, 16, {WIDTH: 2, PATHS: 8}),
        (lambda: EIGHT // TWO, 4, {WIDTH: Fraction(1, 2), PATHS: None}),
        (lambda: sum([EIGHT, TWO]), 10, {WIDTH: None, PATHS: None}),
        (lambda: (3 * EIGHT) * 0, 0, {WIDTH: 0}),
    ],
)
def test_marks_say_how_many_times_an_attribute_a_number_is(function, value, ratios):
    assert function() == value
    assert function().ratios == ratios


def test_other_results_are_what_they_are_for_plain_integers():
    assert EIGHT * 2.0 == 16.0
    assert EIGHT / 2 == 4.0
    assert [1] * TWO == [1, 1]
    assert not marks_in((EIGHT % 3, EIGHT == 8, float(EIGHT)))
    assert repr((EIGHT, [TWO])) == "(8, [2])"
    assert torch.equal(torch.ones(2) * EIGHT, torch.full((2,), 8.0))
    with pytest.raises(ZeroDivisionError):
        EIGHT // 0


def marks_in(tree: object) -> list[Marked]:
    return list(marks(tree))


def test_marks_are_found_in_all_arguments():
    assert marks_in(((EIGHT, slice(None, TWO)), {"dim": [EIGHT]}, 3, torch.ones(2))) == [8, 2, 8]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.widths, self.pair = 3, [1, 2], (4, "a")
        self.name, self.flag, self.none, self.dim, self.layer = "block", True, 0, -1, nn.Linear(2, 5)


def test_positive_integers_of_modules_are_marked_and_those_of_pytorch_are_not():
    model = nn.Sequential(Block(), nn.Linear(2, 2))
    before = [dict(vars(module)) for module in model.modules()]
    values = mark_attributes(model)
    expected = {("width", None): 3, ("widths", 0): 1, ("widths", 1): 2, ("pair", 0): 4}
    assert values == {Source("0", *key): value for key, value in expected.items()}
    assert [dict(vars(module)) for module in model.modules()] == before
    assert marks_in((model[0].width, model[0].widths, model[0].pair)) == [3, 1, 2, 4]
    assert type(model[0].flag) is bool
    assert not marks_in(list(vars(model[1]).values()))
