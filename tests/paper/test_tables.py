import csv
import json
from pathlib import Path

import pytest

from paper.settings import read_study
from paper.tables import ahead, draw, last, networks, percent, show, side_by_side, table, write_study

PAPER = Path(__file__).parents[2] / "paper"
STUDY = read_study(PAPER / "cifar100.yml")


def row(method, target="own", seed=0, step=0, test=0.5, size=1_000_000):
    sizes = {"params": size, "macs": 2 * size, "flops": 4 * size, "train_macs": 10**12}
    return {"method": method, "target": target, "seed": seed, "step": step, "test_accuracy": test} | sizes


ROWS = [
    *(row("S3D", step=step, seed=seed, test=0.36 + 0.1 * seed + 0.01 * step) for step in (4, 5) for seed in (0, 1)),
    row("S3D", "macs", step=5, test=0.9),
    row("S2D", step=5, test=0.3),
    row("random splits", "macs", step=1, test=0.35),
    row("L1 pruning", "cost", test=0.2),
]


def test_the_last_network_of_every_seed_counts():
    found = last(networks(STUDY, ROWS, "S3D", "own"))
    assert [(one["seed"], one["step"]) for one in found] == [(0, 5), (1, 5)]
    assert percent(found) == (pytest.approx(46), pytest.approx(7.0710678))


def test_the_table_has_means_deviations_and_what_the_paper_says():
    lines = table(STUDY, ROWS, "own").splitlines()
    assert lines[2] == "| S3D | 2 | 46.0 ± 7.1 | 1 | 2 | 4 | 1 | 70.19 | 0.3 | 73.69 |"
    assert lines[3] == "| S2D | 1 | 30.0 | 1 | 2 | 4 | 1 | 69.69 | 0.31 | 79.94 |"
    assert len(lines) == 4


IMAGENET = read_study(PAPER / "imagenet.yml")
OF_IMAGENET = [
    *(row("S3D", step=step, test=0.1 * step) | {"test_top5": 0.2 * step} for step in range(5)),
    *(row("S2D", step=step, test=0.1 * step) | {"test_top5": 0.2 * step} for step in range(5)),
    row("AMC") | {"test_top5": 0.7},
]


def test_every_step_that_the_paper_has_numbers_of_has_a_line():
    lines = table(IMAGENET, OF_IMAGENET, "own").splitlines()
    assert "| accuracy (%) | top-5 (%) | parameters (M) | MMACs | MFLOPs | training (T MACs) | paper" in lines[0]
    assert lines[0].endswith("| paper: accuracy (%) | paper: top-5 (%) | paper: MMACs |")
    assert lines[2] == "| S3D, step 0 | 1 | 0.0 | 0.0 | 1 | 2 | 4 | 1 | 59.2 | 81.82 | 59 |"
    assert lines[6] == "| S3D, step 4 | 1 | 40.0 | 80.0 | 1 | 2 | 4 | 1 | 74.12 | 91.5 | 558 |"
    assert lines[7] == "| S2D, step 1 | 1 | 10.0 | 20.0 | 1 | 2 | 4 | 1 | 64.06 | 85.3 | 82 |"
    assert lines[-1] == "| AMC | 1 | 50.0 | 70.0 | 1 | 2 | 4 | 1 | 70.5 | 89.3 | 301 |"


def test_the_csv_has_the_papers_numbers_beside_those_networks(tmp_path):
    write_study(IMAGENET, OF_IMAGENET, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    macs = [row["paper_macs"] for row in rows]
    assert macs == ["59.0", "82.0", "140.0", "291.0", "558.0", "", "82.0", "140.0", "292.0", "561.0", "301.0"]
    write_study(STUDY, ROWS, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["paper_accuracy"] for row in rows] == ["", "", "70.19", "70.19", "", "69.69", "", ""]


def test_the_papers_numbers_stand_beside_their_steps_where_a_method_has_stopped_early(tmp_path):
    write_study(IMAGENET, OF_IMAGENET[:4], tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["paper_macs"] for row in rows] == ["59.0", "82.0", "140.0", "291.0"]
    assert [line.split(" | ")[-1] for line in table(IMAGENET, OF_IMAGENET[:4], "own").splitlines()[2:]] == [
        *("59 |", "82 |", "140 |", "291 |")
    ]


def test_at_equal_cost_growing_within_the_macs_of_the_reference_counts():
    lines = table(STUDY, ROWS, "cost").splitlines()
    names = [line.split(" | ")[0] for line in lines[2:]]
    assert names == ["| S3D, as published", "| S3D", "| random splits", "| L1 pruning"]
    assert lines[2].startswith("| S3D, as published | 2 | 46.0")
    assert lines[3].startswith("| S3D | 1 | 90.0")  # within its own MACs


def test_every_target_has_a_table():
    shown = show(STUDY, ROWS)
    assert shown.startswith("As published\n\n| method | seeds | accuracy (%) |")
    assert "As many MACs as S3D, after as many MACs of training in all" in shown
    one = shown.partition("In one table\n\n")[2].splitlines()
    assert one[0] == "| method | as many MACs | as many MACs and as much training |"
    assert one[2:] == ["| S3D | 90.0 | 90.0 |", "| random splits | 35.0 | 35.0 |", "| L1 pruning |  | 20.0 |"]
    assert show(STUDY, []) == "nothing is done yet"


def test_differences_are_those_of_the_same_seeds():
    rows = [row("S3D", step=5, seed=seed, test=0.1 * seed) for seed in range(3)]
    rows += [row("S2D", step=5, seed=seed, test=0.1 * seed + 0.01 * (2 + seed)) for seed in range(2)]
    rows += [row("L1 pruning", "cost", seed=seed, test=0.1 * seed - 0.02) for seed in range(3)]
    lines = ahead(STUDY, rows).splitlines()
    assert lines[0] == "| method | as published | as many MACs and as much training |"
    assert lines[2:] == ["| S2D | +2.5 ± 0.7 |  |", "| L1 pruning |  | -2.0 ± 0.0 |"]
    assert show(STUDY, rows).endswith(ahead(STUDY, rows))


def test_the_figure_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    draw(STUDY, ROWS, tmp_path / "figure.png")
    draw(STUDY, [], tmp_path / "nothing.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [path.stem.removesuffix("_small") for path in PAPER.glob("results/*_small.json")])
def test_the_documentation_has_the_tables_of_the_records(name):
    study = read_study(PAPER / f"{name}.yml")
    jobs = json.loads((PAPER / "results" / f"{name}_small.json").read_text())
    rows = [row for job in jobs.values() for row in job["rows"]]
    equal = [target for target in ("params", "macs", "cost") if any(row["target"] == target for row in rows)]
    text = (PAPER.parent / "docs" / "results.md").read_text()
    assert table(study, rows, "own") in text
    assert (side_by_side(study, rows, equal) if len(equal) > 1 else table(study, rows, *equal)) in text
