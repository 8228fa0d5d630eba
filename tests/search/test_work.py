import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from nni_s3d.search import work
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.store import Store
from nni_s3d.tasks.training import Evaluation
from tests import small_task


def test_more_steps_go_on_without_training_anything_twice(tmp_path, monkeypatch):
    trained, original = [], work.train
    monkeypatch.setattr(work, "train", lambda *args: trained.append(args[5]) or original(*args))
    stores = {steps: Store(str(tmp_path / steps)) for steps in ("at once", "later")}
    for store, steps in ((stores["at once"], [2]), (stores["later"], [0, 1, 2])):
        trained.clear()
        for number in steps:
            *_, last = run(read_experiment(small_task.write(tmp_path, steps=number)), store)
        assert trained == ["step 0", "step 1", "step 2"]
        assert last[0]["step"] == 2
    keys = [[store.read_json(outcome_path("c1.3-m2-s0", i))["key"] for i in range(3)] for store in stores.values()]
    assert keys[0] == keys[1]
    for key in keys[0]:
        one, other = (load_file(f"{store.url}/{key}/weights.safetensors") for store in stores.values())
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        one, other = (store.read_json(f"{key}/metrics.json") for store in stores.values())
        assert one == other


def test_fewer_steps_end_earlier(tmp_path):
    store = Store(str(tmp_path / "s"))
    for steps in (2, 1):
        assert len(list(run(read_experiment(small_task.write(tmp_path, steps=steps)), store))) == steps + 1


def test_a_store_may_move_while_nothing_runs(tmp_path, monkeypatch):
    path = small_task.write(tmp_path, steps=1)
    first = list(run(read_experiment(path), Store(str(tmp_path / "one"))))
    shutil.move(tmp_path / "one", tmp_path / "two")
    monkeypatch.setattr(work, "train", lambda *args: 1 / 0)
    assert list(run(read_experiment(path), Store(str(tmp_path / "two")))) == first


@pytest.mark.parametrize("lr", [1e12, 1e30])
def test_a_lineage_ends_where_its_training_diverges_and_no_other_does(tmp_path, caplog, lr):
    path = small_task.write(tmp_path, {"training": small_task.TASK["training"] | {"lr": lr}})
    store = Store(str(tmp_path / "s"))
    ((parameters, metrics),) = run(read_experiment(path), store)
    assert (parameters["step"], metrics) == (0, None)
    assert "ends: step 0 failed in a way that it would again: DivergenceError: step 0: expected" in caplog.text
    assert not list((tmp_path / "s").rglob("metrics.json"))


def test_a_loss_that_is_none_ends_it_too(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(work, "evaluate", lambda *_: Evaluation(0.1, math.nan))
    ((_, metrics),) = run(read_experiment(small_task.write(tmp_path, steps=0)), Store(str(tmp_path / "s")))
    assert metrics is None
    assert "DivergenceError: step 0: expected a finite loss after training, got nan" in caplog.text
