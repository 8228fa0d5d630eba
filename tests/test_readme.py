import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml

import nni_s3d as s3d
from nni_s3d.cli import main
from nni_s3d.growth.selection.settings import Knapsack, TopFraction
from nni_s3d.search.branches import ways_of
from nni_s3d.search.experiment import read_experiment
from nni_s3d.search.lineage import Lineage
from nni_s3d.search.read_lineages import lineages
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import read_task

ROOT = Path(__file__).parents[1]
TASKS = ["digits", "fashion_mnist", "cifar100", "imagenet", "modelnet40"]
TABLE_2 = Knapsack([82e6, 140e6, 291e6, 558e6])  # MACs of the networks of the paper's Table 2
# Where the paper says how to train, too: its schedule. And how many neurons it splits in a step.
SCHEDULES = {"cifar100": {"schedule": "step", "gamma": 0.1}, "modelnet40": {"schedule": "cosine", "min_lr": 1e-3}}
FRACTIONS = {"modelnet40": 0.4}
GROWING = ["s3d", "s2d", "s3d_paper", "s2d_paper", "new_neurons", "random_splits"]
STRATEGIES = [*GROWING, "random", "tpe", "evolution"]
MORE = {"digits": ["grid_search", "s3d_branches"]}  # of NNI's strategies
README = (ROOT / "README.md").read_text()


@pytest.mark.filterwarnings("ignore::RuntimeWarning:nni")
def test_snippets_run():
    torch.manual_seed(0)
    scope = {}
    for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(snippet, "README.md", "exec"), scope)
    assert scope["experiment"].strategy is not None
    assert scope["model"][0].out_features > 8


def test_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "nni-s3d new" in block)
    for line in block.splitlines():
        program, *words = line.split()
        assert (program, main(words)) == ("nni-s3d", 0)
    assert "step 6: accuracy" in capsys.readouterr().out


def test_settings_of_the_tuner_are_read():
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    (tuner,) = (block["tuner"] for block in blocks if "tuner" in block)
    (lineage,) = lineages(tuner["classArgs"])
    assert {name: (way.c, way.copies) for name, way in ways_of(lineage).items()} == {
        "s2d": (1.0, 2),
        "quartets": (1.3, 4),
    }


@pytest.mark.parametrize("name", TASKS)
def test_strategies_differ_in_the_tuner_and_its_limits_only(name):
    folder, strategies = ROOT / "configs" / name, [*STRATEGIES, *MORE.get(name, [])]
    files = {s: yaml.safe_load((folder / f"{s}.yml").read_text()) for s in strategies}
    own = ("experimentName", "tuner", "maxTrialNumber", "trialConcurrency")
    shared = {s: {k: v for k, v in f.items() if k not in own} for s, f in files.items()}
    if name in SCHEDULES:
        for s in ("s3d_paper", "s2d_paper"):
            shared[s]["trialCommand"] = shared[s]["trialCommand"].replace("task_paper.yml", "task.yml")
        paper, ours = (read_task(ROOT / "configs" / name / f"{task}.yml") for task in ("task_paper", "task"))
        assert paper == replace(ours, training=replace(ours.training, **SCHEDULES[name]))
    assert all(content == shared["s3d"] for content in shared.values())
    s3d, s2d = (files[s]["tuner"]["classArgs"] for s in ("s3d", "s2d"))
    assert s2d == {**s3d, "c": 1.0}
    assert files["s2d_paper"]["tuner"]["classArgs"] == {**files["s3d_paper"]["tuner"]["classArgs"], "c": 1.0}


@pytest.mark.parametrize("name", TASKS)
def test_configs_say_the_method_by_its_name(name):
    lineages = {s: read_experiment(ROOT / "configs" / name / f"{s}.yml").lineages[0] for s in GROWING}
    assert {s: lineage.method for s, lineage in lineages.items()} == {
        "s3d": "split",
        "s2d": "split",
        "s3d_paper": "split",
        "s2d_paper": "split",
        "new_neurons": "new_neurons",
        "random_splits": "random",
    }
    s3d, paper = lineages["s3d"], lineages["s3d_paper"]
    chain = {f.name: getattr(s3d, f.name) for f in fields(Lineage) if f.name in ("steps", "epochs", "phase_budget")}
    policies = {"policy": TABLE_2} if name == "imagenet" else {}
    assert s3d == Lineage(**chain, **policies)  # what it spells out are the defaults of growth
    policy = policies.get("policy", TopFraction(FRACTIONS.get(name, 0.35)))
    assert (paper.policy, paper.epsilon, paper.relative, paper.c) == (policy, 0.01, False, 1.3)
    assert (paper.shrink, paper.perturb) == (1.0, 0.0)


@pytest.mark.parametrize("name", TASKS)
def test_configs_fit_their_models(name):
    folder = ROOT / "configs" / name
    experiment = read_experiment(folder / "s3d.yml")
    assert experiment.space == read_task(folder / "task.yml").space()
    model = experiment.task.build_model(experiment.space.low, 0)
    assert dict(experiment.space.low) == {n: model.get_submodule(n).out_channels for n in experiment.space.low}


def test_networks_of_imagenet_cost_what_those_of_the_paper_do():
    experiment = read_experiment(ROOT / "configs" / "imagenet" / "new_neurons.yml")
    (lineage,) = experiment.lineages
    model, inputs = experiment.task.build_model(experiment.space.low, 0), torch.zeros(1, 3, 224, 224)
    settings = {name: getattr(lineage, name) for name in ("method", "shrink", "perturb", "policy", "steps")}
    macs = [step.cost.macs for step in s3d.grow(model.cpu(), inputs, lambda model: None, **settings)]
    assert macs == pytest.approx([0.059e9, *TABLE_2.budget], rel=1e-3)


def test_every_search_space_is_used():
    tasks = (ROOT / "configs").glob("*/task*.yml")
    used = {read_task(task).search_space.rpartition("/")[2] for task in tasks if task.parent.name != "digits"}
    assert {path.name for path in (ROOT / "search_spaces").iterdir()} == used
    assert all(Space.read(path).low for path in (ROOT / "search_spaces").iterdir())


def test_documented_arguments_are_those_of_a_lineage():
    page = (ROOT / "docs" / "settings.md").read_text()
    table = page[page.index("The tuner's `classArgs`") : page.index("After `nni-s3d register`")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:2] == "| "]
    documented = {cells[0].strip("`"): cells[-1] for cells in rows[2:]}
    assert documented.keys() - {"lineages"} == {f.name for f in fields(Lineage)}
    default = Lineage()
    for name, said in documented.items():
        value = getattr(default, name, None)
        if value is not None and name not in ("policy", "name"):
            assert said == str(value).lower(), name


@pytest.mark.parametrize("network", ["pointnet", "pointnet2"])
def test_other_networks_on_clouds_differ_in_the_network_alone(network):
    own, dgcnn = (read_task(ROOT / "configs" / "modelnet40" / f"task_{name}.yml") for name in (network, "paper"))
    assert replace(own, model=dgcnn.model, search_space=dgcnn.search_space) == dgcnn
    assert own.model == {"factory": f"nni_s3d.models:{network}", "num_classes": 40}
