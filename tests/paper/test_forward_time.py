from pathlib import Path

import pytest
import torch
from torch import nn

from paper import compare, forward_time

DIGITS = str(Path(__file__).parents[2] / "paper" / "digits.yml")


class Counting(nn.Module):
    """A network that notes when it is called."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, x):
        self.calls.append(self.name)
        return x


def test_networks_are_timed_in_turns():
    calls = []
    times = forward_time.medians({name: Counting(name, calls) for name in "ab"}, torch.ones(3, 3), rounds=5)
    assert calls == ["a", "b"] * 6  # the first round warms up
    assert list(times) == ["a", "b"]
    assert all(time > 0 for time in times.values())


def test_the_last_networks_are_timed(tmp_path, capsys):
    out = str(tmp_path)
    compare.main([DIGITS, "--scale", "tiny", "--out", out, "--methods", "full size"])
    capsys.readouterr()
    forward_time.main([DIGITS, "--scale", "tiny", "--out", out, "--rounds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| S3D", "| full size"]
    assert lines[2].endswith(" 1.00 |")


def test_nothing_to_time_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"error: out: expected what paper.compare has left in .*, got nothing"):
        forward_time.main([DIGITS, "--scale", "tiny", "--out", str(tmp_path)])
