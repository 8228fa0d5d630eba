import json
from dataclasses import asdict

from nni_s3d.cli import main
from nni_s3d.search.experiment import check, read_experiment
from tests import small_task


def test_check_prints_what_would_run(tmp_path, capsys):
    path = small_task.write(tmp_path, lineages=[{"c": 1.0}, {"steps": 3}])
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(path)]) == 0
    names = "c1-m2-s0 (up to 2 steps), c1.3-m2-s0 (up to 3 steps)"
    assert capsys.readouterr().out == f"{path}: {names} on digits, from 313 params, 5,502 MACs\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_check_prints_json(tmp_path, capsys):
    path = small_task.write(tmp_path)
    assert main(["check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "data": "digits",
        "lineages": [{"name": "c1.3-m2-s0", "steps": 2}],
        **asdict(check(read_experiment(path))),
    }
