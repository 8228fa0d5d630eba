import pytest

from nni_s3d.compare.collect import COLUMNS, collected
from nni_s3d.errors import ReportError
from nni_s3d.search.store import Store
from tests.report.fake_nni import Nni, metrics


@pytest.fixture
def experiments(tmp_path):
    for name, title in (("aaaa", "TPE"), ("bbbb", "TPE"), ("cccc", "")):
        nni = Nni(tmp_path, name, experimentName=title)
        for number, accuracy in enumerate([0.4, 0.8]):
            nni.trial(number, {"conv0": 4 + number}, metrics(accuracy, size=1000 * (1 + number)), end=20 + number)
        nni.trial(2, {"conv0": 9}, None, end=40, status="FAILED")
    return tmp_path


def test_experiments_of_one_name_are_seeds(experiments):
    rows = collected(["aaaa", "cccc", "bbbb"], experiments_dir=experiments)
    assert list(rows.columns) == list(COLUMNS)
    assert list(dict.fromkeys(zip(rows["strategy"], rows["seed"], strict=True))) == [
        ("TPE", 0),
        ("cccc", 0),
        ("TPE", 1),
    ]
    assert rows["trial"].tolist() == [0, 1] * 3
    assert rows["search_macs"].tolist() == [10_000_000, 30_000_000] * 3


def test_what_is_beyond_the_budget_is_left_out(experiments):
    assert len(collected(["aaaa"], 2e7, experiments)) == 1
    with pytest.raises(ReportError, match="experiment aaaa: expected a trial within the budget, got none"):
        collected(["aaaa"], 1e6, experiments)


def test_experiments_with_different_tasks_are_refused(experiments):
    tasks = {"aaaa": {"data": {"name": "digits"}, "seed": 0}, "bbbb": {"data": {"name": "digits"}, "seed": 1}}
    for name, task in tasks.items():
        Store(str(experiments / name / "store")).write_json("task.json", task)
    assert len(collected(["aaaa", "bbbb", "cccc"], experiments_dir=experiments)) == 6  # nobody knows of cccc
    Store(str(experiments / "cccc" / "store")).write_json("task.json", {"data": {"name": "cifar100"}, "seed": 0})
    message = r"experiment cccc: expected the task of experiment aaaa, got another one \(data\)"
    with pytest.raises(ReportError, match=message):
        collected(["aaaa", "bbbb", "cccc"], experiments_dir=experiments)


def test_trials_of_another_kind_are_refused(tmp_path):
    nni = Nni(tmp_path)
    nni.trial(0, {"lr": 0.1}, 0.9, end=20)
    with pytest.raises(
        ReportError, match="experiment abcd1234: expected trials of nni_s3d, got none with test_accuracy"
    ):
        collected(["abcd1234"], experiments_dir=tmp_path)
    with pytest.raises(ReportError, match="experiment 'nobody': expected it in"):
        collected(["nobody"], experiments_dir=tmp_path)
