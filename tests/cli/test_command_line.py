import datetime
import io
import shlex

import pytest
import yaml

from nni_s3d.cli import main, parser
from nni_s3d.cli.command_line import COMMANDS
from nni_s3d.search import work
from nni_s3d.search.experiment import TRIAL
from tests import small_task
from tests.cli.one_line import one_line
from tests.fresh_process import HEAVY, loaded_by


def model(name, **arguments):
    return {"model": {"factory": f"tests.factories:{name}", **arguments}}


def small(**arguments):
    return {"model": {**small_task.TASK["model"], **arguments}}


def knapsack(**settings):
    return {"policy": {"name": "knapsack", **settings}}


INF, NAN = float("inf"), float("nan")
NAME = "classArgs.name: expected 1 to 200 of the characters A-Z"
TRAINS = "model: expected a network that trains on inputs (50, 1, 8, 8) of 10 classes, got "
CLASS_ARGS = [
    *[
        ({"name": name}, NAME)
        for name in ("../../evil", "a/0", "a/state", "\0", "x" * 300, " ", "a\nb", ".a", "a.json")
    ],
    ({"copies": 5}, "classArgs.copies: expected 2, 3 or 4"),
    ({"copies": [2, 2.5]}, "classArgs.copies[1]: expected a whole number, got 2.5"),
    ({"solver": "x"}, "classArgs.solver: expected one of auto, exact, lanczos, rayleigh, got 'x'"),
    ({"smoothing": INF}, "classArgs.smoothing: expected a finite number, got inf"),
    ({"smoothing": 1e300}, "classArgs.smoothing: expected a number > 0 and <= 1e+06, got 1e+300"),
    ({"epsilon": 1e300}, "classArgs.epsilon: expected a number >= 0 and <= 1e+06, got 1e+300"),
    ({"epsilon": 10**400}, "classArgs.epsilon: expected a finite number, got 1000"),
    ({"c": 1e308}, "classArgs.c: expected a number >= 1 (1 is S2D) and <= 1e+06, got 1e+308"),
    ({"c": 10**400}, "classArgs.c: expected a finite number, got 1000"),
    ({"seed": 2**80}, "classArgs.seed: expected a whole number >= 0 and < 2**63, got 1208925819614629174706176"),
    ({"policy": {"name": "top_k", "k": 1, "eta": INF}}, "classArgs.policy.eta: expected a finite number, got inf"),
    ({"policy": {"name": "top_k", "k": 0}}, "classArgs.policy.k: expected a whole number >= 1, got 0"),
    ({"policy": {"name": ["top_k"]}}, "classArgs.policy.name: expected one of top_k, top_fraction, knapsack, got ["),
    (knapsack(budget=10.0), "lineage c1.3-m2-s0: budget: expected at least 5,502 macs, what the network costs"),
    (knapsack(budget=INF), "classArgs.policy.budget: expected a finite number, got inf"),
    (knapsack(growth=NAN), "classArgs.policy.growth: expected a finite number, got nan"),
    (knapsack(), "classArgs.policy.budget: expected either budget or growth, got"),
    ({"max_params": 1}, "lineage c1.3-m2-s0: max_params: expected at least 313, what the network has, got 1"),
    ({"max_macs": 1}, "lineage c1.3-m2-s0: max_macs: expected at least 5,502, what the network has, got 1"),
    ({"lineages": [{"c": 3.0}, {"seed": -1}]}, "classArgs.lineages[1].seed: expected a whole number >= 0"),
]
TASKS = [
    ({"data": {"name": "fashion_mnist"}}, "FashionMNIST/raw: expected the four idx files"),
    ({"data": {"name": "digits", "samples": 5000}}, "data.samples: expected between 2 and 1438 for digits, got 5000"),
    ({"data": {"name": "digits", "samples": 200, "validation": 0.9999}}, "data.validation: expected a fraction that"),
    (
        {"data": {"name": "digits", "pad": 10**9}},
        "data.pad: expected at most 8, the size of the images, got 1000000000",
    ),
    ({"search_space": "none.json"}, "none.json: expected a file, got: No such file"),
    ({"search_space": "no\0ne.json"}, "ne.json': expected a text file, got: embedded null byte"),
    ({"seed": 2**80}, "task.yml: seed: expected a whole number >= 0 and < 2**63, got 1208925819614629174706176"),
    ({"device": "meta"}, "task.yml: device: expected auto or one that PyTorch finds here, got 'meta'"),
    (
        {"device": "privateuseone"},
        "task.yml: device: expected auto or one that PyTorch finds here, got 'privateuseone'",
    ),
    ({"device": "mps"}, "task.yml: device: expected auto or one that PyTorch finds here, got 'mps'"),
    (
        {"directory": "."},
        "task.yml: unknown key 'directory'; expected data, model, search_space, training, curvature, se",
    ),
    ({"curvature": {"memory": -1}}, "task.yml: curvature.memory: expected a number >= 0 (GiB), got -1.0"),
    ({"training": {"lr": -1}}, "task.yml: training.lr: expected a number > 0 and <= 3.4e+38, got -1.0"),
    ({"training": {"lr": INF}}, "task.yml: training.lr: expected a finite number, got inf"),
    ({"training": {"weight_decay": INF}}, "task.yml: training.weight_decay: expected a finite number, got inf"),
    ({"training": {"milestones": [NAN]}}, "task.yml: training.milestones[0]: expected a finite number, got nan"),
    ({"training": {"nesterov": True, "momentum": 0}}, "task.yml: training.nesterov: expected a momentum > 0 beside it"),
    (
        small(since=datetime.date(2020, 1, 1)),
        "task.yml: model: expected arguments that JSON can say, got Object of type",
    ),
    (small(num_classes=3), TRAINS + "an output of shape (50, 3)"),
    (small(num_classes=-1), "model: expected arguments that nni_s3d.models:mobilenet_v1_small takes, got RuntimeError"),
    (small(colour=3), "model: expected arguments that nni_s3d.models:mobilenet_v1_small takes, got TypeError"),
    ({"model": {"factory": "a:b"}}, "model.factory: expected package.module:function, got 'a:b': ModuleNotFoundError"),
    ({"model": {"factory": ".x:f"}}, "model.factory: expected package.module:function, got '.x:f': TypeError"),
    ({"model": {"factory": "tests.not_python:f"}}, "model.factory: expected package.module:function, got 'tests.not_p"),
    (model("nothing"), "model: expected tests.factories:nothing to return an nn.Module, got NoneType"),
    (model("text"), "model: expected tests.factories:text to return an nn.Module, got str"),
    (
        model("raises_value_error"),
        "model: expected arguments that tests.factories:raises_value_error takes, got ValueE",
    ),
    (model("raises_key_error"), "model: expected arguments that tests.factories:raises_key_error takes, got KeyError"),
    (model("huge"), "model: expected arguments that tests.factories:huge takes, got RuntimeError"),
    (model("tuple_of_scores"), TRAINS + "AttributeError: 'tuple' object has no attribute"),
    (model("one_number"), TRAINS + "an output of shape (50,)"),
    (model("frozen"), TRAINS + "RuntimeError: element 0 of tensors does not require grad"),
    (model("four_for_three"), "model: expected layers of the widths {'conv0': 3, 'pw1': 3, 'pw2': 3, "),
    (model("under_other_names"), "expected conv0, of the search space, among its layers, which it does not have"),
    (model("one_layer"), "model: expected a layer that can be split, got none"),
]
COMMAND = "trialCommand: expected python -m nni_s3d.plugin.trial task.yml, got "
EXPERIMENTS = [
    ({"tuner": 5}, "s3d.yml: tuner: expected a mapping, got 5"),
    ({"tuner": "S3D"}, "s3d.yml: tuner: expected a mapping, got 'S3D'"),
    ({"tuner": ["a"]}, "s3d.yml: tuner: expected a mapping, got ['a']"),
    ({"tuner": {"name": "TPE"}}, "s3d.yml: tuner: expected className: nni_s3d.plugin.tuner.S3DTuner or name: S3D, got"),
    *[
        ({"tuner": {"name": "S3D", "classArgs": wrong}}, "s3d.yml: tuner.classArgs: expected a mapping or nothing, got")
        for wrong in ([1], [], "x", 5, 0)
    ],
    *[({"trialCodeDirectory": w}, "s3d.yml: trialCodeDirectory: expected a text, got") for w in (5, None, [])],
    *[({"searchSpaceFile": w}, "s3d.yml: searchSpaceFile: expected a text or nothing, got") for w in (5, [])],
    ({"searchSpaceFile": None}, "s3d.yml: expected searchSpaceFile or searchSpace, got neither"),
    (
        {"searchSpace": small_task.SPACE, "searchSpaceFile": None, "trialCommand": None},
        "trialCommand: expected a text, got",
    ),
    *[
        ({"trialCommand": f"python -m {TRIAL}{rest}"}, COMMAND)
        for rest in ("", " -h", " 'task.yml", " task.yml other.yml")
    ],
    (
        {"searchSpace": {**small_task.SPACE, "pw5": {"_type": "quniform", "_value": [2, 9, 1]}}},
        "searchSpaceFile: expected the search space of the task, space.json, got another",
    ),
]


@pytest.mark.parametrize("command", ["check", "grow"])
@pytest.mark.parametrize(
    ("class_args", "task", "experiment", "message"),
    [
        *[(changes, {}, {}, message) for changes, message in CLASS_ARGS],
        *[({}, changes, {}, message) for changes, message in TASKS],
        *[({}, {}, changes, message) for changes, message in EXPERIMENTS],
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path, capsys, monkeypatch, command, class_args, task, experiment, message
):
    monkeypatch.setenv("NNI_S3D_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr(work, "train", lambda *args, **kwargs: pytest.fail("trained"))
    path = small_task.write(tmp_path, task=task, **class_args)
    if experiment:
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **experiment}))
    before = sorted(tmp_path.rglob("*"))
    store = ["--store", str(tmp_path / "s")] if command == "grow" else []
    assert main([command, str(path), *store]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    one_line(capsys.readouterr().err, message)


def test_a_missing_file_is_named(capsys):
    assert main(["grow", "nowhere.yml"]) == 2
    one_line(capsys.readouterr().err, "nowhere.yml: expected a file, got: No such file")


def test_help_loads_nothing_heavy():
    modules = loaded_by("""
from nni_s3d.cli import main, parser
from nni_s3d.cli.command_line import COMMANDS
try:
    main(["--help"])
except SystemExit:
    pass
""")
    assert not (HEAVY | {"nni", "numpy", "yaml", "fsspec"}) & modules


def test_every_command_has_examples_that_parse(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
        assert examples
        for example in examples:
            words = shlex.split(example, comments=True)
            assert words[:2] == ["nni-s3d", name]
            parser().parse_args(words[1:])


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_can_complete_it(shell, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    assert "search-space" in capsys.readouterr().out


def test_where_an_error_comes_from_is_shown_on_demand(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NNI_S3D_TRACEBACK", raising=False)
    path = small_task.write(tmp_path, {"model": {"factory": "none:make"}})
    assert main(["check", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["--traceback", "check", str(path)]) == 2
    shown = capsys.readouterr().err
    assert "import_factory" in shown
    one_line(shown.splitlines()[-1] + "\n", "ModuleNotFoundError")


def test_quiet_leaves_results_and_warnings(tmp_path, capsys, caplog):
    path = small_task.write(tmp_path, steps=0)
    assert main(["-q", "grow", str(path), "--store", str(tmp_path / "s")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert not [record for record in caplog.records if record.levelname == "INFO"]


def test_a_surprise_is_one_line_with_its_place(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nni_s3d.cli.check.run", lambda parsed: 1 / 0)
    assert main(["check", "x"]) == 2
    one_line(capsys.readouterr().err, "error: unexpected ZeroDivisionError: division by zero (test_command_line.py:")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_what_ends_early_does_not_end_well(monkeypatch, error, code):
    def raises(parsed):
        raise error

    monkeypatch.setattr("nni_s3d.cli.check.run", raises)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert main(["check", "x"]) == code
