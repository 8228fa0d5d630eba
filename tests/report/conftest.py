import pytest

from tests.finished import experiment, finished  # noqa: F401
from tests.report.fake_nni import Nni, metrics, spec


@pytest.fixture
def growth(tmp_path):
    """Two lineages that grow side by side, one with a failure and a trial that still runs."""
    nni = Nni(tmp_path, status="RUNNING")
    nni.trial(0, spec(0), metrics(0.6, 0, test=0.9), end=20)
    nni.trial(1, spec(0, "c1-m2-s0"), metrics(0.5, 0), end=19)
    nni.trial(2, spec(1, width=12), metrics(0.8, 1, test=0.7, size=1500), end=40)
    nni.trial(3, spec(1, "c1-m2-s0"), None, end=30, status="FAILED")
    nni.trial(4, spec(2, width=20), None, end=60, status="RUNNING")
    return nni


@pytest.fixture
def plain(tmp_path):
    """Five trials of a strategy that proposes widths."""
    nni = Nni(tmp_path)
    for number, accuracy in enumerate([0.4, 0.7, 0.6, 0.9, 0.8]):
        widths = {"conv0": 4 + number, "pw1": 8.0}
        nni.trial(number, widths, metrics(accuracy, size=1000 * (1 + number)), end=20 + number)
    return nni
