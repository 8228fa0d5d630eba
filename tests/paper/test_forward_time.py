from pathlib import Path

import pytest
import torch
from torch import nn

from paper import compare, forward_time

DIGITS = str(Path(__file__).parents[2] / "paper" / "digits.yml")


class Slow(nn.Module):
    """A network that takes as many products as it is told to."""

    def __init__(self, products):
        super().__init__()
        self.products, self.matrix = products, nn.Parameter(torch.eye(300))

    def forward(self, x):
        for _ in range(self.products):
            x = x @ self.matrix
        return x


def test_medians_tell_the_slower_network():
    times = forward_time.medians({"fast": Slow(1), "slow": Slow(60)}, torch.ones(300, 300), rounds=5)
    assert list(times) == ["fast", "slow"]
    assert times["slow"] > times["fast"] > 0


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
