import shutil

import pytest

from nni_s3d.errors import ReportError
from nni_s3d.export.choice import candidates, choose
from nni_s3d.search.experiment import read_experiment
from nni_s3d.search.store import Store
from nni_s3d.search.trial import run
from tests import small_task
from tests.report.fake_nni import Nni, metrics


def test_trials_that_have_succeeded_are_found_by_their_ids(experiment, finished):
    found = candidates("abcd1234", experiments_dir=experiment.root)
    assert [candidate.trial for candidate in found] == ["trial0", "trial1"]
    assert [candidate.network.metrics for candidate in found] == [metrics for _, metrics in finished[1]]


def test_a_store_is_found_by_its_path(finished):
    found = candidates(str(finished[0]))
    assert {candidate.trial for candidate in found} == {candidate.network.key for candidate in found}
    assert sorted(candidate.network.parameters["step"] for candidate in found) == [0, 1]


def test_plain_widths_are_found_whatever_kind_of_number_nni_made_of_them(tmp_path):
    path = small_task.write(tmp_path)
    experiment, nni = read_experiment(path), Nni(tmp_path)
    proposed = [dict.fromkeys(experiment.space.low, 3.0), dict.fromkeys(experiment.space.low, 4.0)]
    for number, parameters in enumerate(proposed):
        nni.trial(number, parameters, metrics(0.5), end=20 + number)
    run(proposed[1], experiment.task, Store(str(tmp_path / "abcd1234" / "store")))
    (found,) = candidates("abcd1234", experiments_dir=tmp_path)
    assert (found.trial, found.network.widths["pw1"]) == ("trial1", 4)


def test_the_best_on_validation_is_chosen_within_limits(experiment):
    found = candidates("abcd1234", experiments_dir=experiment.root)
    first, second = (candidate.network.metrics for candidate in found)
    best = max(found, key=lambda candidate: candidate.network.metrics["default"])
    assert choose(found) == best
    assert first["macs"] < second["macs"]
    assert choose(found, under_macs=first["macs"]).trial == "trial0"
    assert choose(found, under_params=first["params"]).trial == "trial0"
    assert choose(found, trial="trial1").trial == "trial1"
    with pytest.raises(ReportError, match=r"--under-macs: expected at least 5.50k, the smallest, got 100"):
        choose(found, under_macs=100)
    with pytest.raises(ReportError, match="trial 'x': expected one of trial0, trial1"):
        choose(found, trial="x")


def test_what_is_not_there_is_named(experiment, tmp_path, monkeypatch):
    with pytest.raises(ReportError, match=r"experiment 'nobody': expected it in .*, found abcd1234"):
        candidates("nobody", experiments_dir=experiment.root)
    with pytest.raises(ReportError, match=r"no/where: expected its artefacts, got: .*FileNotFoundError"):
        candidates("no/where")
    shutil.rmtree(experiment.root / "abcd1234" / "store")
    with pytest.raises(
        ReportError, match=r"experiment abcd1234: expected its artefacts, got: .*store: expected a place"
    ):
        candidates("abcd1234", experiments_dir=experiment.root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match="empty: expected a finished trial, found none"):
        candidates(str(tmp_path / "empty"))
