import json

import pandas as pd
import pytest
import yaml

from nni_s3d.compare import command as command_module
from nni_s3d.compare.collect import COLUMNS
from nni_s3d.compare.command import command
from nni_s3d.errors import ConfigError
from nni_s3d.search import trial
from tests import small_task


@pytest.fixture
def configs(tmp_path):
    s3d, random = small_task.write(tmp_path), tmp_path / "random.yml"
    random.write_text(yaml.safe_dump({**small_task.EXPERIMENT, "tuner": {"name": "Random"}}))
    return [s3d, random]


def test_it_runs_prints_and_writes(configs, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(configs, [], 1e8, [0, 1], 1, out) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [str(out / name) for name in ("trials.csv", "seeds.csv", "compare.png")]
    assert {line.split()[0] for line in printed[2:4]} == {"s3d", "random"}
    rows = pd.read_csv(out / "trials.csv")
    assert list(rows.columns) == list(COLUMNS)
    assert set(zip(rows["strategy"], rows["seed"], strict=True)) == {(s, i) for s in ("s3d", "random") for i in (0, 1)}
    assert len(pd.read_csv(out / "seeds.csv")) == 4


def test_json_is_all_that_is_printed(configs, tmp_path, capsys):
    assert command(configs[:1], [], 1e8, [0], 1, tmp_path / "out", as_json=True) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["strategy"], row["seed"]) == ("s3d", 0)


def test_what_is_done_is_not_done_again(configs, tmp_path, capsys, monkeypatch):
    command(configs, [], 1e8, [0], 1, tmp_path / "out")
    first = capsys.readouterr().out
    monkeypatch.setattr(trial, "run", lambda *_: pytest.fail("trained"))
    command(configs, [], 1e8, [0], 1, tmp_path / "out")
    assert capsys.readouterr().out == first


def test_processes_find_the_same(configs, tmp_path, capsys):
    tables = []
    for workers in (1, 2):
        command(configs, [], 1e8, [0], workers, tmp_path / f"out{workers}")
        tables.append(capsys.readouterr().out.splitlines()[:-3])
    assert tables[0] == tables[1]


def test_a_run_that_fails_is_told_and_the_others_count(configs, tmp_path, capsys, monkeypatch):
    carried_out = command_module.Run.carry_out

    def failing(self):
        if self.label == "random":
            raise RuntimeError("no memory")
        carried_out(self)

    monkeypatch.setattr(command_module.Run, "carry_out", failing)
    assert command(configs, [], 1e8, [0], 1, tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "random, seed 0: failed: RuntimeError: no memory" in told.err
    assert told.out.splitlines()[2].startswith("s3d")


def test_a_strategy_that_the_budget_pays_nothing_of_is_named(configs, tmp_path, capsys):
    assert command(configs, [], 1e7, [0], 1, tmp_path / "out") == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == "random, seed 0: left out: the budget pays for no network of it"
    assert [line.split()[0] for line in told.out.splitlines()[2:3]] == ["s3d"]


def test_experiments_of_nni_stand_beside_them(configs, tmp_path, capsys, monkeypatch, rows):
    monkeypatch.setattr(command_module, "collected", lambda ids, budget: rows.assign(strategy=ids[0]))
    assert command([], ["abcd"], 1e8, [0], 1, tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("abcd")


def test_bad_input_is_named(configs, tmp_path):
    with pytest.raises(ConfigError, match="--budget: expected MACs of training for every strategy"):
        command(configs, [], None, [0], 1, tmp_path / "out")
    with pytest.raises(ConfigError, match="compare: expected experiment files, or --ids of experiments, got none"):
        command([], [], 1e9, [0], 1, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"expected files of different names, got two called s3d.yml"):
        command([configs[0], configs[0]], [], 1e9, [0], 1, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"nowhere.yml: expected a file"):
        command([tmp_path / "nowhere.yml"], [], 1e9, [0], 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()
