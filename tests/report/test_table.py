import json
import math

import pytest

from nni_s3d.errors import ReportError
from nni_s3d.report.table import best_row, read_frame, si, table
from nni_s3d.tasks.search_space import RESERVED
from tests.report.fake_nni import Nni, metrics, spec

NAN = math.nan


def test_trials_of_a_nas_experiment_are_read_by_their_samples(tmp_path):
    nni = Nni(tmp_path)
    frozen = {"status": "frozen", "model_kwargs": {"task": "task.yml"}}
    nni.trial(0, {**frozen, "sample": spec(1, width=12)}, metrics(0.8, 1), end=20)
    nni.trial(1, {**frozen, "sample": {"conv0": 8, **dict.fromkeys(RESERVED)}}, metrics(0.7), end=30)
    frame = read_frame(experiments_dir=tmp_path)
    assert list(frame["lineage"]) == ["c1.3-m2-s0", ""]
    assert list(frame["step"]) == [1, 0]
    assert list(frame["widths"]) == ['{"conv0": 12}', '{"conv0": 8}']


def test_read_lists_trials_in_the_order_of_their_ends(growth):
    frame = read_frame(experiments_dir=growth.root)
    columns = "experiment trial sequence lineage step accuracy test_accuracy loss params macs flops train_macs"
    assert list(frame.columns) == [*columns.split(), "search_macs", "status", "seconds", "widths"]
    assert list(frame["trial"]) == ["trial1", "trial0", "trial3", "trial2", "trial4"]
    assert list(frame["sequence"]) == [1, 0, 3, 2, 4]
    assert list(frame["status"]) == ["SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED", "RUNNING"]
    assert list(frame["lineage"]) == ["c1-m2-s0", "c1.3-m2-s0", "c1-m2-s0", "c1.3-m2-s0", "c1.3-m2-s0"]
    assert list(frame["step"]) == [0, 0, 1, 1, 2]
    assert set(frame["experiment"]) == {"abcd1234"}


def test_read_gives_the_metrics_of_finished_trials_and_what_the_search_has_paid(growth):
    frame = read_frame("abcd1234", growth.root)
    expected = {
        "accuracy": [0.5, 0.6, NAN, 0.8, NAN],
        "test_accuracy": [0.5, 0.9, NAN, 0.7, NAN],
        "params": [1000, 1000, NAN, 1500, NAN],
        "macs": [40_000, 40_000, NAN, 60_000, NAN],
        "flops": [90_000, 90_000, NAN, 135_000, NAN],
        "train_macs": [1e7, 1e7, NAN, 1.5e7, NAN],
        "search_macs": [1e7, 2e7, NAN, 3.5e7, NAN],
        "seconds": [10, 10, 10, 10, NAN],
    }
    for column, values in expected.items():
        assert list(frame[column]) == pytest.approx(values, nan_ok=True), column
    assert json.loads(frame["widths"][3]) == {"conv0": 12}


def test_read_takes_plain_widths(plain):
    frame = read_frame(experiments_dir=plain.root)
    assert list(frame["lineage"]) == [""] * 5
    assert frame["widths"][2] == '{"conv0": 6, "pw1": 8}'  # whole numbers, though quniform gives 8.0
    assert list(frame["search_macs"]) == [1e7, 3e7, 6e7, 1e8, 1.5e8]


def test_no_finished_trial(tmp_path):
    nni = Nni(tmp_path, status="RUNNING")
    nni.trial(0, spec(0), None, end=20, status="FAILED")
    nni.trial(1, spec(0), None, end=30, status="RUNNING")
    message = r"abcd1234 \(RUNNING\): .*nni.sqlite: expected a finished trial, found 1 FAILED, 1 RUNNING; see .*trial0/"
    with pytest.raises(ReportError, match=message):
        read_frame(experiments_dir=tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(NAN, "-"), (0, "0"), (950, "950"), (1000, "1.00k"), (30_211, "30.2k"), (431_000, "431k")],
        *[(1_203_456, "1.20M"), (3.45e9, "3.45G"), (1.2e13, "12.0T"), (7e15, "7.00P")],
    ],
)
def test_si_units(value, text):
    assert si(value) == text


def test_the_table_marks_the_best_validation_accuracy(growth):
    lines = table(read_frame(experiments_dir=growth.root)).splitlines()
    assert lines[0].split() == "trial lineage step accuracy test loss params MACs search MACs time status".split()
    assert [line.split()[1] for line in lines[2:-1] if line.startswith("*")] == ["trial2"]  # test prefers trial0
    assert lines[5].split() == "* trial2 c1.3-m2-s0 1 0.8000 0.7000 0.2 1.50k 60.0k 35.0M 0:00:10 SUCCEEDED".split()
    assert lines[4].split() == "trial3 c1-m2-s0 1 - - - - - - 0:00:10 FAILED".split()
    assert len({line.rindex(" ") for line in lines[:7]}) == 1  # the last column is aligned
    assert max(map(len, lines)) < 120
    assert "never used to choose" in lines[-1]


def test_the_table_leaves_out_what_nobody_reported(tmp_path):
    nni = Nni(tmp_path)
    nni.trial(0, {"conv0": 4}, 0.25, end=20)
    assert table(read_frame(experiments_dir=tmp_path)).splitlines()[0].split() == [
        "trial",
        "accuracy",
        "time",
        "status",
    ]


def test_the_first_of_equals_is_the_best(plain):
    frame = read_frame(experiments_dir=plain.root)
    frame["accuracy"] = [0.4, 0.9, 0.6, 0.9, NAN]
    assert best_row(frame) == 1
    frame["accuracy"] = NAN
    assert best_row(frame) is None
    assert "\n*  trial" not in table(frame)
