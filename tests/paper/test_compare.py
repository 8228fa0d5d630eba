import csv
import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nni_s3d.errors import ConfigError
from nni_s3d.tasks.training import train
from paper import compare, growth
from paper.bench import Bench
from paper.settings import TARGETS, Job, read_study
from tests.processes import side_by_side

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "paper" / "digits.yml"
ROW = {"method": "S3D", "target": "own", "seed": 0, "step": 0}


def run(out, *arguments):
    compare.main([str(DIGITS), "--scale", "tiny", "--out", str(out), *arguments])
    with (out / "table.csv").open() as file:
        return list(csv.DictReader(file))


def write_study(folder, **model):
    """Write the study of digits with another network, and return its path."""
    task = yaml.safe_load((ROOT / "configs" / "digits" / "task.yml").read_text())
    task["model"] |= model
    task["search_space"] = str(ROOT / "configs" / "digits" / "search_space.json")
    study = yaml.safe_load(DIGITS.read_text()) | {"task": "task.yml"}
    for name, content in (("task.yml", task), ("study.yml", study)):
        (folder / name).write_text(yaml.safe_dump(content))
    return folder / "study.yml"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Every method to every target, on a quarter of a thousand digits."""
    return run(tmp_path_factory.mktemp("whole"))


def of(rows, method, target="own"):
    return [row for row in rows if (row["method"], row["target"]) == (method, target)]


def test_every_method_comes_to_every_target(rows):
    study = read_study(DIGITS)
    found = {(row["method"], row["target"]) for row in rows}
    assert found == {(job.method, job.target) for job in study.jobs(None, TARGETS, [0])}


def test_nothing_is_larger_than_its_target(rows):
    reference = of(rows, "S3D")[-1]
    for row in rows:
        if row["target"] != "own":
            kind = "params" if row["target"] == "params" else "macs"
            steps = of(rows, "S3D") if row["step"] != "0" else [reference]
            assert int(row[kind]) <= max(int(step[kind]) for step in steps), row
    for method in ("L1 pruning", "batch-norm pruning", "MorphNet"):
        assert int(of(rows, method)[0]["params"]) <= 0.8 * int(of(rows, "full size")[0]["params"])


def test_growing_within_a_budget_keeps_to_it_after_every_step(rows):
    reference = of(rows, "S3D")
    for method, kind in (("S3D", "params"), ("new neurons", "params"), ("S3D", "macs"), ("random splits", "macs")):
        found = of(rows, method, kind)
        assert len(found) == len(reference)
        for row, bound in zip(found, reference, strict=True):
            assert int(row[kind]) <= int(bound[kind])


def test_training_costs_what_it_costs(rows):
    images = 256 - 51  # a fifth is held out
    full = of(rows, "full size")[0]
    assert int(full["train_macs"]) == 3 * int(full["macs"]) * images
    pruned = of(rows, "L1 pruning")[0]
    assert int(pruned["train_macs"]) == 3 * (int(full["macs"]) + int(pruned["macs"])) * images
    assert int(of(rows, "S3D")[0]["train_macs"]) > 3 * int(of(rows, "S3D")[0]["macs"]) * images  # and the spectrum


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(rows, tmp_path, monkeypatch, capsys):
    names = ("S3D", "L1 pruning")
    calls = itertools.count()

    def train_twice(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("paper.trained.train", train_twice)
        begun = run(tmp_path, "--methods", *names)
    assert "not all is done; the same command goes on" in capsys.readouterr().err
    expected = [row for row in rows if row["method"] in names]
    assert 0 < len(begun) < len(expected)
    assert run(tmp_path, "--methods", *names) == expected


def test_what_is_done_is_not_begun_again(tmp_path, monkeypatch):
    study = read_study(DIGITS)
    Bench(study, study.scale("tiny"), Job("S3D", "own", 0), tmp_path).keep([ROW, ROW | {"step": 1}], done=True)
    begun = []
    monkeypatch.setattr(compare, "carry_out", lambda study, scale, job, out: begun.append(job.method))
    compare.run(study, study.scale("tiny"), study.jobs(["S3D", "S2D"], ["own"], [0]), tmp_path, 1, None)
    assert begun == ["S2D"]


def test_two_processes_find_what_one_finds(rows, tmp_path):
    names = ("S3D", "S2D")
    assert run(tmp_path, "--methods", *names, "--workers", "2") == [row for row in rows if row["method"] in names]


def test_torchrun_finds_what_one_process_finds(tmp_path):
    path = write_study(tmp_path, factory="tests.factories:mobilenet_in_float64", image_size=8)
    methods = ["--methods", "S3D", "batch-norm pruning", "AMC", "--targets", "own", "macs"]

    def study(out):
        compare.main([str(path), "--scale", "tiny", "--out", str(tmp_path / out), *methods])

    assert side_by_side(lambda: study("two"), join=False, seconds=120) == [None, None]
    study("one")
    one, two = ((tmp_path / out / "table.csv").read_text() for out in ("one", "two"))
    assert one == two
    assert one.count("\n") == 1 + 3 + 3 + 2 + 1


def test_what_torchrun_cannot_do_is_refused():
    study, parsed = read_study(ROOT / "paper" / "modelnet40.yml"), compare.parse(["x.yml"])
    compare.check_torchrun(study, study.jobs(["DGCNN, S2D"], ["own"], [0]), parsed)
    with pytest.raises(ConfigError, match=r"methods: expected some that share the study's task .*, got 'PointNet'"):
        compare.check_torchrun(study, study.jobs(["PointNet"], ["own"], [0]), parsed)
    for option in ("--seconds", "--workers"):
        with pytest.raises(ConfigError, match=rf"expected {option} [01] with torchrun"):
            compare.check_torchrun(study, [], compare.parse(["x.yml", option, "2"]))


def test_a_method_that_fails_is_reported_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(compare.WAYS, "widths", lambda bench: iter(1 / 0 for _ in range(1)))
    rows = run(tmp_path, "--methods", "full size")
    assert {row["method"] for row in rows} == {"S3D"}
    assert "full-size-own-0: ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_a_folder_of_other_settings_is_refused(tmp_path, capsys):
    study = read_study(DIGITS)
    scale = study.scale("tiny")
    Bench(study, scale, Job("S3D", "own", 0), tmp_path).keep([], done=True)
    other = dataclasses.replace(study, growth=study.growth | {"c": 1.5})
    with pytest.raises(Exception, match=r"settings.json: expected the same settings, got other ones for growth"):
        compare.carry_out(other, scale, Job("S3D", "own", 0), tmp_path)


def test_errors_are_one_line(tmp_path):
    command = [sys.executable, "-m", "paper.compare", str(DIGITS), "--out", str(tmp_path)]
    for arguments, expected in (
        (["--scale", "huge"], "error: scale: expected one of small, tiny, got 'huge'"),
        (["--scale", "tiny", "--methods", "S4D"], "error: methods: expected some of S3D, S2D"),
    ):
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(expected)
        assert done.stderr.count("\n") == 1


def test_a_mistake_in_the_data_or_the_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NNI_S3D_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^error: .*: expected .*cifar-100-python.*") as error:
        compare.main([str(ROOT / "paper" / "cifar100.yml"), "--scale", "small", "--out", str(tmp_path)])
    assert "\n" not in str(error.value)
    path = write_study(tmp_path, num_classes=7)
    with pytest.raises(SystemExit, match=r"^error: model: expected a network .* of 10 classes, got an output .*7"):
        compare.main([str(path), "--scale", "tiny", "--out", str(tmp_path / "out")])


def test_rows_of_other_settings_are_not_shown(tmp_path):
    study = read_study(DIGITS)
    scale, job = study.scale("tiny"), Job("S2D", "own", 0)
    Bench(study, scale, job, tmp_path).keep([{"method": "S2D"}], done=True)
    assert compare.collected(study, scale, [0], tmp_path) == [{"method": "S2D"}]
    other = dataclasses.replace(study, growth=study.growth | {"epsilon": 0.5})
    assert compare.collected(other, scale, [0], tmp_path) == []
    assert compare.collected(study, dataclasses.replace(scale, epochs=2), [0], tmp_path) == []
    assert compare.collected(study, dataclasses.replace(scale, episodes=5), [0], tmp_path) == [{"method": "S2D"}]


def test_the_table_keeps_the_other_seeds(tmp_path):
    study = read_study(DIGITS)
    Bench(study, study.scale("tiny"), Job("S2D", "own", 0), tmp_path).keep([ROW | {"method": "S2D"}], done=True)
    rows = run(tmp_path, "--seeds", "1", "--methods", "full size")
    assert {(row["method"], row["seed"]) for row in rows} == {("S2D", "0"), ("S3D", "1"), ("full size", "1")}


def test_a_trial_that_is_tried_again_does_not_end_its_job(tmp_path, monkeypatch):
    metrics = {"step": 0, "train_macs": 1, "default": 0.5, "test_accuracy": 0.5, "params": 1, "macs": 1, "flops": 1}
    parameters = {"widths": read_study(DIGITS).scaled_task(read_study(DIGITS).scale("tiny")).space().low}
    monkeypatch.setattr(growth, "widths_of", lambda given: given["widths"])
    bench = Bench(read_study(DIGITS), read_study(DIGITS).scale("tiny"), Job("S3D", "own", 0), tmp_path)
    monkeypatch.setattr(growth, "run", lambda *_: iter([(parameters, None), (parameters, metrics)]))
    assert [row["step"] for row in growth.grow(bench)] == [0]
    monkeypatch.setattr(growth, "run", lambda *_: iter([(parameters, metrics), (parameters, None)]))
    with pytest.raises(RuntimeError, match="a trial has failed"):
        list(growth.grow(bench))


def test_what_is_not_done_is_in_the_file_alone(tmp_path):
    study = read_study(DIGITS)
    scale = study.scale("tiny")
    Bench(study, scale, Job("S2D", "own", 0), tmp_path).keep([{"method": "S2D"}], done=False)
    assert compare.collected(study, scale, [0], tmp_path) == []
    assert compare.collected(study, scale, [0], tmp_path, unfinished=True) == [{"method": "S2D"}]
