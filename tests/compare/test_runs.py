import dataclasses

import pytest
import yaml

from nni_s3d.compare.runs import Run, check_runs
from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search import trial
from nni_s3d.search.experiment import read_file
from nni_s3d.search.folder import Folder
from tests import small_task


def written(folder, tuner="TPE", **task):
    """The experiment file of a tuner of NNI's, or of S3D."""
    path = small_task.write(folder, task=task)
    if tuner != "S3D":
        content = {**small_task.EXPERIMENT, "tuner": {"name": tuner} if tuner else {}}
        path = folder / f"{tuner}.yml".lower()
        path.write_text(yaml.safe_dump(content))
    return read_file(path)


def planned(file, out, budget=1e8, seed=0):
    return Run(file.path.stem, file, seed, budget, out)


@pytest.mark.parametrize("tuner", ["S3D", "TPE"])
def test_it_spends_its_budget_and_no_more(tmp_path, tuner):
    run = planned(written(tmp_path, tuner), tmp_path / "out")
    assert not run.done
    run.carry_out()
    assert run.done
    rows = run.rows()
    assert len(rows) > 1
    assert rows[-1]["search_macs"] == sum(row["train_macs"] for row in rows) <= 1e8
    assert [row["trial"] for row in rows] == list(range(len(rows)))
    assert {(row["strategy"], row["seed"]) for row in rows} == {(tuner.lower(), 0)}
    less = dataclasses.replace(run, budget=rows[0]["search_macs"])
    assert (less.done, less.rows()) == (True, rows[:1])


def test_a_larger_budget_goes_on_without_training_anything_twice(tmp_path, monkeypatch):
    file, proposed, trained = written(tmp_path), [], []
    run, one_trial = trial.run, trial.work
    monkeypatch.setattr(trial, "run", lambda *a: proposed.append(a[0]) or run(*a))
    monkeypatch.setattr(trial, "work", lambda context: trained.append(context.key) or one_trial(context))
    first = planned(file, tmp_path / "out", 6e7)
    first.carry_out()
    first.carry_out()
    rows, before = first.rows(), len(trained)
    asked = proposed[:]
    proposed.clear()
    more = planned(file, tmp_path / "out", 1.4e8)
    assert not more.done
    more.carry_out()
    assert more.rows()[: len(rows)] == rows
    assert len(more.rows()) > len(rows)
    assert proposed[: len(asked)] == asked
    assert len(trained) == len(set(trained))
    assert 0 < len(trained) - before < len(more.rows())


def test_it_goes_on_after_an_interruption(tmp_path, monkeypatch):
    run = planned(written(tmp_path, "S3D"), tmp_path / "out", 1e9)

    def interrupted(self, number, *others):
        if number == 1:
            raise KeyboardInterrupt
        return row(self, number, *others)

    row = Run._row
    monkeypatch.setattr(Run, "_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.carry_out()
    assert (len(run.rows()), run.done) == (1, False)
    monkeypatch.setattr(Run, "_row", row)
    run.carry_out()
    undisturbed = planned(run.file, tmp_path / "other", 1e9)
    undisturbed.carry_out()
    assert (run.rows(), run.done) == (undisturbed.rows(), True)
    assert len(run.rows()) == 3


def test_the_seed_is_that_of_all(tmp_path):
    for tuner in ("S3D", "Random"):
        rows = [planned(written(tmp_path, tuner), tmp_path / "out", seed=seed) for seed in (0, 1)]
        for run in rows:
            run.carry_out()
        first, second = (run.rows()[0] for run in rows)
        assert first["accuracy"] != second["accuracy"] or first["widths"] != second["widths"]


def test_other_settings_are_refused(tmp_path):
    planned(written(tmp_path, "Random"), tmp_path / "out").carry_out()
    other = planned(written(tmp_path, "Random", training={**small_task.TASK["training"], "lr": 0.3}), tmp_path / "out")
    with pytest.raises(StoreError, match=r"settings.json: expected the same settings, got other ones for task"):
        other.carry_out()


def test_a_damaged_file_is_no_result(tmp_path):
    run = planned(written(tmp_path, "Random"), tmp_path / "out")
    Folder(str(tmp_path / "out" / "runs" / "random-0")).write_bytes("rows.json", b"{")
    assert (run.rows(), run.done) == ([], False)


def test_what_is_no_comparison_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "run", lambda *_: pytest.fail("trained"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    file, out = written(tmp_path / "a", "S3D"), tmp_path / "out"
    other = written(tmp_path / "b", "TPE", seed=3)
    with pytest.raises(ConfigError, match=r"tpe.yml: expected the task of .*s3d.yml, got another one \(seed\)"):
        check_runs([planned(file, out), planned(other, out)])
    with pytest.raises(
        ConfigError, match=r"--budget: expected at least 4.95M, what the smallest network costs, got 1.00M"
    ):
        check_runs([planned(file, out, 1e6)])
    with pytest.raises(ConfigError, match=r"tuner Hyperband: expected a tuner, .* got an advisor"):
        check_runs([planned(written(tmp_path / "a", "Hyperband"), out)])
    with pytest.raises(ConfigError, match=r"seed: expected a whole number >= 0 and < 2\*\*63, got -1"):
        check_runs([planned(file, out, seed=-1)])
    with pytest.raises(ConfigError, match=r"none.yml: tuner: expected its name or className, got none"):
        check_runs([planned(written(tmp_path / "a", None), out)])
    check_runs([planned(file, out), planned(written(tmp_path / "a", "TPE"), out)])
    assert not out.exists()
