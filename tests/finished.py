"""A finished experiment, in this process and as if NNI had run it: fixtures of those that read them."""

import shutil

import pytest

from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from tests import small_task
from tests.report.fake_nni import Nni


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Two steps of a lineage, and what it yielded: its store and its trials."""
    folder = tmp_path_factory.mktemp("export")
    path = small_task.write(folder, steps=1)
    return folder / "store", list(run(read_experiment(path), Store(str(folder / "store"))))


@pytest.fixture
def experiment(finished, tmp_path):
    """The same as an experiment of NNI's, in which a third trial has failed."""
    store, trials = finished
    nni = Nni(tmp_path)
    for number, (parameters, metrics) in enumerate(trials):
        nni.trial(number, parameters, metrics, end=20 + number)
    nni.trial(2, trials[1][0] | {"step": 2}, None, end=40, status="FAILED")
    shutil.copytree(store, tmp_path / nni.name / "store")
    return nni
