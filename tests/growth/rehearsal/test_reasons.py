import numpy as np
import pytest
import torch

from nni_s3d.growth.graph.spots import Spot
from nni_s3d.growth.rehearsal import reasons
from nni_s3d.growth.rehearsal.record import Place

SPOT = Spot("layer1.0", "net.py:12", "assert c == self.c")


def place(name: str, *args: object, pieces: tuple[int, ...] = (4, 4)) -> Place:
    values = [torch.zeros(2, size) for size in pieces]
    return Place(name, ((None, *args), {}), values, values, [np.arange(size).reshape(1, -1) for size in pieces])


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (place("split", (4, 4), 1), "the widths (4, 4) as numbers; write chunk(2, 1)"),
        (place("split", 4, 1), "the width 4 as a number; write chunk(2, 1)"),
        (place("split", [3, 5], 1, pieces=(3, 5)), "the widths (3, 5) as numbers; write chunk for equal parts, or one"),
        (place("view", -1, 8, pieces=(8,)), "the sizes (-1, 8) as numbers; write -1 or x.shape[...] for the width"),
        (place("reshape", (2, 8), pieces=(8,)), "the sizes (2, 8) as numbers"),
        (place("expand", 2, 8, pieces=(8,)), "the sizes (2, 8) as numbers"),
        (place("narrow", 1, 0, 4, pieces=(4,)), "the bounds (0, 4) as numbers"),
        (place("getitem", (slice(None), slice(None, 4)), pieces=(4,)), "the bounds [:, :4] as numbers"),
        (place("getitem", (..., slice(2, None, 2)), pieces=(4,)), "the bounds [..., 2::2] as numbers"),
    ],
)
def test_numbers_in_the_code_are_named_and_what_to_write_instead(one, said):
    what = f"{one.name} in layer1.0 (net.py:12) is given {said}"
    assert reasons.of_call(one.name, one, SPOT, None, False).startswith(f"{reasons.DIFFERENT}: {what}")
    assert reasons.of_call(one.name, one, SPOT, ValueError("no"), False).startswith(f"{reasons.FAILS}: {what}")
    assert reasons.of_refusal(one.name, one, SPOT, "it is mixed", False).startswith(f"{reasons.DIFFERENT}: {what}")


def test_numbers_that_follow_the_width_are_not_to_blame():
    one = place("view", 2, 2, 4, pieces=(8,))
    assert reasons.of_call("view", one, SPOT, None, True).endswith(
        "puts copies of a neuron where others belong; take widths from x.shape, or from an attribute of the module"
    )
    assert reasons.of_call("view", one, SPOT, ValueError("no\nmore"), True) == (
        "the model fails when it grows: no (view in layer1.0 (net.py:12)); write -1 for the width that grows"
    )
    assert "no (mul in layer1.0 (net.py:12)); take" in reasons.of_call("mul", one, SPOT, ValueError("no"), True)
    assert reasons.of_refusal("view", one, SPOT, "it is mixed", True).endswith("when it grows: it is mixed")


def test_errors_of_the_models_own_code():
    said = reasons.of_error(AssertionError(), SPOT)
    assert "AssertionError (raised in layer1.0 (net.py:12), assert c == self.c); does it hold a width" in said
    assert "three are wanted (raised in layer1.0" in reasons.of_error(ValueError("three are wanted"), SPOT)


def test_other_reasons():
    assert "mul in layer1.0 (net.py:12) uses a width as a number" in reasons.of_values("mul", SPOT, True)
    assert reasons.of_values("mul", SPOT, False).endswith("gives other values; let it depend on no width")
    assert "that randn draws at random for every channel" in reasons.of_random_numbers("add", SPOT, "randn")
    assert "meets a tensor of shape (2, 8) which does not grow" in reasons.of_partner("add", SPOT, (2, 8), None)
    assert "meets pos, of shape (8,), which does not grow" in reasons.of_partner("add", SPOT, (8,), "pos")
    assert reasons.of_another_way("relu", SPOT).endswith("does a width choose the way?")
