import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from paper import compare, forward_time
from paper.settings import read_study

PAPER = Path(__file__).parents[2] / "paper"
DIGITS = str(PAPER / "digits.yml")


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
    assert lines[2].endswith(" 1 |  |")  # the paper has no digits
    rows = list(csv.DictReader((tmp_path / "forward_time.csv").open()))
    assert [row["method"] for row in rows] == ["S3D", "full size"]
    assert all(float(row["milliseconds"]) > 0 and 0 <= float(row["accuracy"]) <= 100 for row in rows)
    assert float(rows[1]["relative"]) == pytest.approx(float(rows[1]["milliseconds"]) / float(rows[0]["milliseconds"]))
    assert (tmp_path / "forward_time.png").read_bytes().startswith(b"\x89PNG")


def test_the_papers_time_stands_in_a_column_of_its_own():
    study = read_study(PAPER / "modelnet40.yml")
    bench = SimpleNamespace(method=study.methods["DGCNN, 1.0x"], rows=lambda: [{"test_accuracy": 0.5}])
    found = forward_time.row("DGCNN, 1.0x", 3.0, {"DGCNN, S3D": 2.0, "DGCNN, 1.0x": 3.0}, bench)
    assert found == {
        **{"method": "DGCNN, 1.0x", "accuracy": 50, "milliseconds": 3, "relative": 1.5, "paper_milliseconds": 60.12}
    }


def test_nothing_to_time_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"error: out: expected what paper.compare has left in .*, got nothing"):
        forward_time.main([DIGITS, "--scale", "tiny", "--out", str(tmp_path)])
