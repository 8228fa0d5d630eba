import shutil

import pytest

from nni_s3d.errors import ReportError
from nni_s3d.report.networks import code_folder, networks_of
from nni_s3d.search.experiment import read_experiment
from nni_s3d.search.store import Store
from nni_s3d.search.trial import run
from tests import small_task
from tests.report.fake_nni import Nni, metrics


def test_trials_that_have_succeeded_are_found_by_their_ids(experiment, finished):
    found = networks_of("abcd1234", experiments_dir=experiment.root)
    assert [network.trial for network in found] == ["trial0", "trial1"]
    assert [network.network.metrics for network in found] == [metrics for _, metrics in finished[1]]


def test_a_store_is_found_by_its_path(finished):
    found = networks_of(str(finished[0]))
    assert {network.trial for network in found} == {network.network.key for network in found}
    assert sorted(network.network.parameters["step"] for network in found) == [0, 1]


def test_plain_widths_are_found_whatever_kind_of_number_nni_made_of_them(tmp_path):
    path = small_task.write(tmp_path)
    experiment, nni = read_experiment(path), Nni(tmp_path)
    proposed = [dict.fromkeys(experiment.space.low, 3.0), dict.fromkeys(experiment.space.low, 4.0)]
    for number, parameters in enumerate(proposed):
        nni.trial(number, parameters, metrics(0.5), end=20 + number)
    run(proposed[1], experiment.task, Store(str(tmp_path / "abcd1234" / "store")))
    (found,) = networks_of("abcd1234", experiments_dir=tmp_path)
    assert (found.trial, found.network.widths["pw1"]) == ("trial1", 4)


def test_what_is_not_there_is_named(experiment, tmp_path, monkeypatch):
    with pytest.raises(ReportError, match=r"experiment 'nobody': expected it in .*, found abcd1234"):
        networks_of("nobody", experiments_dir=experiment.root)
    with pytest.raises(ReportError, match=r"no/where: expected its artefacts, got: .*FileNotFoundError"):
        networks_of("no/where")
    shutil.rmtree(experiment.root / "abcd1234" / "store")
    with pytest.raises(
        ReportError, match=r"experiment abcd1234: expected its artefacts, got: .*store: expected a place"
    ):
        networks_of("abcd1234", experiments_dir=experiment.root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match="empty: expected a finished trial, found none"):
        networks_of(str(tmp_path / "empty"))


def test_the_code_of_trials_is_where_the_experiment_says(experiment, tmp_path):
    assert code_folder("abcd1234", experiment.root) is None
    experiment.config({"trialCodeDirectory": str(tmp_path)})
    assert code_folder("abcd1234", experiment.root) == tmp_path
    assert code_folder(str(tmp_path)) is None
