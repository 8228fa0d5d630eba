import json

import pytest
import yaml

from nni_s3d.cli import main
from tests import small_task
from tests.cli.one_line import one_line

RESIDUAL = small_task.RESIDUAL["factory"]


def test_inspect_makes_a_search_space(tmp_path, capsys):
    out = tmp_path / "made.json"
    assert main(["inspect", RESIDUAL, "--input", "1,1,8,8", "--set", "classes=10", "--search-space", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "stem and 1 more" in printed
    assert printed.endswith(f"{out}\n")
    assert json.loads(out.read_text()) == small_task.RESIDUAL_SPACE


def test_inspect_prints_json(tmp_path, capsys):
    out = tmp_path / "made.json"
    assert main(["inspect", RESIDUAL, "--input", "1,1,8,8", "--json", "--search-space", str(out)]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    stem = content["groups"][0]
    assert (stem["name"], stem["width"], len(stem["producers"]), stem["splittable"]) == ("stem", 4, 2, True)
    assert content["groups"][-1]["reason"] == "it is an output of the network"
    assert content["params"] > stem["params_per_neuron"] > 0
    assert printed.err == f"{out}\n"


@pytest.mark.parametrize(
    "settings",
    [
        ["--set", "width=7", "classes=3"],
        ["--set", "width=7", "--set", "classes=3"],
        ["--set", "width=5", "classes=3", "--set", "width=7"],
    ],
    ids=["together", "one by one", "the last one of a name"],
)
def test_inspect_takes_all_settings(settings, capsys):
    assert main(["inspect", "tests.factories:two_layers", "--input", "1,4", *settings]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0]: row[1] for row in rows if row[0] in ("0", "2")} == {"0": "7", "2": "3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.such:thing", "--input", "1,1"], "model.factory: expected package.module:function, got 'no.such:thing'"),
        ([RESIDUAL, "--input", "1,3,8,8"], "stem fails on the example inputs"),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--set", "colour=3"],
            "model: expected arguments that tests.factories:residual",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--set", "classes"],
            "--set: expected KEY=VALUE, got 'classes'",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--set", "classes=[1"],
            "--set: classes: expected a value as in YAML",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--search-space", "{}/s3d.yml"],
            "s3d.yml: expected a file that is not there",
        ),
        (
            [RESIDUAL, "--input", "1,1,8,8", "--search-space", "{}/no/where"],
            "no/where: expected a file to write to",
        ),
    ],
)
def test_mistakes_of_inspect_are_one_line_and_exit_code_2(tmp_path, capsys, arguments, message):
    (tmp_path / "s3d.yml").write_text(yaml.safe_dump({}))
    assert main(["inspect", *(word.replace("{}", str(tmp_path)) for word in arguments)]) == 2
    one_line(capsys.readouterr().err, message)
    assert (tmp_path / "s3d.yml").read_text() == "{}\n"
