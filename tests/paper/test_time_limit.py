import time

import pytest

from paper.time_limit import at_most


def test_a_block_is_left_when_its_time_is_over(capsys):
    with at_most(0.05):
        time.sleep(30)
        pytest.fail("the block was not left")
    assert "the same command goes on" in capsys.readouterr().err


def test_a_block_without_a_limit_ends_by_itself_or_at_an_interrupt(capsys):
    with at_most(0):
        time.sleep(0.01)
    assert capsys.readouterr().err == ""
    with at_most(0):
        raise KeyboardInterrupt
    assert "the same command goes on" in capsys.readouterr().err


def test_errors_pass():
    with pytest.raises(ValueError, match="mine"), at_most(60):
        raise ValueError("mine")
