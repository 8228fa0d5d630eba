import shutil

import numpy as np
import pandas as pd
import pytest

from nni_s3d.errors import ReportError
from nni_s3d.report.records import read_records
from nni_s3d.report.table import read_frame, table


def test_an_experiment_has_its_networks(experiment):
    experiment.config({"trialCommand": "x"})
    records = read_records(None, experiment.root)
    assert (records.name, records.status, records.config) == ("abcd1234", "DONE", {"trialCommand": "x"})
    assert [one.trial for one in records.networks] == ["trial0", "trial1"]
    pd.testing.assert_frame_equal(records.frame, read_frame("abcd1234", experiment.root))


def test_without_its_store_the_numbers_remain(experiment):
    shutil.rmtree(experiment.root / "abcd1234" / "store")
    records = read_records("abcd1234", experiment.root)
    assert records.networks == []
    assert len(records.frame) == 3


def test_a_store_alone_is_an_experiment(finished, experiment):
    store, trials = finished
    records = read_records(str(store))
    theirs = read_frame("abcd1234", experiment.root)
    assert list(records.frame.columns) == list(theirs.columns)
    same = ["lineage", "step", "accuracy", "test_accuracy", "params", "macs", "train_macs", "search_macs"]
    pd.testing.assert_frame_equal(records.frame[same], theirs[same][:2])
    assert records.frame["seconds"].isna().all()
    assert np.isfinite(records.frame["loss"]).all()
    assert "time" not in table(records.frame).splitlines()[0]
    assert len(trials) == 2


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ReportError, match="experiment 'nobody': expected it in"):
        read_records("nobody", tmp_path)
    with pytest.raises(ReportError, match="no/store: expected its artefacts, got"):
        read_records("no/store")
