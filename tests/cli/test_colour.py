import io

import pytest

from nni_s3d.cli.colour import red


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_shows_colour():
    assert red("error:", Terminal()) == "\033[31merror:\033[0m"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_nobody_gets_colour_who_wants_none(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert red("error:", Terminal()) == "error:"


def test_a_file_gets_no_colour():
    assert red("error:", io.StringIO()) == "error:"
