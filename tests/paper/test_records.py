import json
from pathlib import Path

import pytest

from nni_s3d.tasks.search_space import Space
from paper import compare, records
from paper.bench import Bench
from paper.settings import Job, read_study

DIGITS = Path(__file__).parents[2] / "paper" / "digits.yml"
NAMES = ["S3D", "full size", "width multiplier"]


def run(out, *arguments):
    compare.main([str(DIGITS), "--scale", "tiny", "--out", str(out), "--methods", *NAMES, *arguments])
    return (out / "table.csv").read_text()


@pytest.fixture
def first(tmp_path):
    """A study that has kept its records: its table, and the file."""
    records = tmp_path / "records.json"
    return run(tmp_path / "first", "--records", str(records)), records


def test_a_study_goes_on_without_its_networks(first, tmp_path, monkeypatch):
    table, records = first
    monkeypatch.setattr("paper.trained.train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("nni_s3d.search.work.train", lambda *_: pytest.fail("trained again"))
    assert run(tmp_path / "second", "--records", str(records)) == table


def test_what_comes_from_other_settings_is_run_anew(first, tmp_path):
    table, records = first
    content = json.loads(records.read_text())
    job = next(name for name in content if name.startswith("full-size"))
    content[job] |= {"comes_from": "0", "rows": [{**row, "test_accuracy": 2.0} for row in content[job]["rows"]]}
    records.write_text(json.dumps(content))
    assert run(tmp_path / "second", "--records", str(records)) == table
    assert json.loads(records.read_text())[job]["rows"][0]["test_accuracy"] <= 1


def test_what_is_recorded_counts_where_a_job_was_begun(first, tmp_path, monkeypatch):
    table, records = first
    study = read_study(DIGITS)
    bench = Bench(study, study.scale("tiny"), Job("full size", "own", 0), tmp_path / "second")
    bench.keep([], done=False)
    monkeypatch.setattr("paper.trained.train", lambda *_: pytest.fail("trained again"))
    assert run(tmp_path / "second", "--records", str(records)) == table


def test_another_search_space_is_another_origin(tmp_path, monkeypatch):
    study = read_study(DIGITS)
    bench = Bench(study, study.scale("tiny"), Job("full size", "own", 0), tmp_path)
    before = records._origin(bench)
    wider = Space({name: [*values, 99] for name, values in bench.task.space().values.items()})
    monkeypatch.setattr(type(bench.task), "space", lambda task: wider)
    assert records._origin(bench) != before


def test_records_of_other_seeds_stay(first, tmp_path):
    _, records = first
    before = json.loads(records.read_text())
    run(tmp_path / "first", "--records", str(records), "--seeds", "1")
    assert before.items() < json.loads(records.read_text()).items()


def test_what_was_done_before_is_recorded_too(first, tmp_path):
    _, records = first
    run(tmp_path / "first", "--records", str(tmp_path / "later.json"), "--only-print")
    assert (tmp_path / "later.json").read_text() == records.read_text()
