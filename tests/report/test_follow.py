import io
import re
import sys

import pytest

from nni_s3d.report import follow as follow_module
from nni_s3d.report.follow import follow
from nni_s3d.report.table import read_frame
from tests.report.fake_nni import Nni, metrics, spec


class Script:
    """In place of time.sleep: does one thing after another, then ends the experiment."""

    def __init__(self, *actions) -> None:
        self.actions = list(actions)
        self.calls = 0

    def __call__(self, seconds: float) -> None:
        self.calls += 1
        if self.actions:
            self.actions.pop(0)()


@pytest.mark.parametrize("end", ["DONE", "STOPPED", "ERROR"])
def test_follow_returns_at_the_end(growth, end):
    script = Script(lambda: growth.set_status("NO_MORE_TRIAL"), lambda: growth.set_status(end))
    assert follow(None, growth.root, script) == end
    assert script.calls == 2


def test_follow_returns_when_nothing_comes_any_more(growth):
    def finish():
        growth.metric("trial4", 4, metrics(0.9))
        growth.event("trial4", "SUCCEEDED", 70, 4)

    growth.set_status("TUNER_NO_MORE_TRIAL")
    script = Script(lambda: None, lambda: None, finish)
    assert follow(None, growth.root, script) == "TUNER_NO_MORE_TRIAL"
    assert script.calls == 3 + follow_module._QUIET_POLLS


def test_follow_waits_for_the_next_growth_step(plain):
    plain.set_status("TUNER_NO_MORE_TRIAL")
    quiet = [lambda: None] * (follow_module._QUIET_POLLS - 1)
    step = [lambda: plain.event("next", "RUNNING", 50, 9, spec(1))]
    end = [lambda: plain.event("next", "SUCCEEDED", 60, 9)]
    script = Script(*quiet, *step, *quiet, *quiet, *end)
    follow(None, plain.root, script)
    assert not script.actions
    assert read_frame(experiments_dir=plain.root)["trial"].iloc[-1] == "next"


def test_follow_does_not_take_the_start_for_the_end(tmp_path):
    nni = Nni(tmp_path, status="TUNER_NO_MORE_TRIAL")
    script = Script(*[lambda: None] * 20, lambda: nni.set_status("STOPPED"))
    assert follow(None, tmp_path, script) == "STOPPED"


def test_follow_shows_one_line_on_a_terminal(growth, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = {}
    for kind in (Terminal, io.StringIO):
        monkeypatch.setattr(sys, "stderr", kind())
        growth.set_status("RUNNING")
        follow(None, growth.root, Script(lambda: growth.set_status("DONE")))
        shown[kind] = sys.stderr.getvalue()
    assert re.search(r"abcd1234: 3 finished, \d\d:\d\d, RUNNING, best accuracy 0\.8000", shown[Terminal])
    assert shown[Terminal].count("\n") == 1
    assert shown[io.StringIO] == ""
    assert "left" not in shown[Terminal]


def test_follow_shows_the_time_left_where_it_can_be_told(growth, monkeypatch):
    monkeypatch.setattr(follow_module, "time_left", lambda trials, config, now: 60.0 * config["trialConcurrency"])
    growth.config({"trialConcurrency": 2})
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    follow(None, growth.root, Script(lambda: growth.set_status("DONE")))
    assert ", about 0:02:00 left" in terminal.getvalue()
