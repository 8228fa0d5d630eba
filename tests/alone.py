"""A process of one thread, whatever threads earlier tests have left behind, such as fsspec's."""

import threading

import pytest


@pytest.fixture
def alone(monkeypatch):
    """Let no thread be seen but those that start from now on, and the one of progress bars."""
    before, every = set(threading.enumerate()) - {threading.current_thread()}, threading.enumerate
    left = {thread for thread in before if type(thread).__name__ != "TMonitor"}
    monkeypatch.setattr(threading, "enumerate", lambda: [thread for thread in every() if thread not in left])
