import time

import pytest

from nni_s3d.tasks import machine


def test_a_machine_has_a_speed():
    assert 0 < machine.gflops() < 1e5


def test_the_speed_is_operations_per_second(monkeypatch):
    moments = iter([10.0, 10.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    assert machine.gflops() == pytest.approx(2 * 256**3 * 20 / 0.5 / 1e9)


def test_only_a_slow_machine_is_spoken_of():
    assert machine.warning(machine.USUAL) == ""
    assert "3.0 GFLOP/s, where one current core reaches 30; expect trials to take about 10 times" in machine.warning(
        3.0
    )
