import doctest

import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.graph.equal_parts import check_equal_parts
from tests.cases import BY_NAME, CASES, measured
from tests.wide import WIDE, random_case

RANDOM = tuple(random_case(seed) for seed in range(40))
every_case = pytest.mark.parametrize("case", [*CASES, *WIDE, *RANDOM], ids=lambda case: case.name)
MLP = BY_NAME["mlp-tanh"]


def random_scores(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.width, generator=generator) for g in graph.splittable_groups}


@every_case
@pytest.mark.parametrize("cost", ["macs", "params", "neurons"])
def test_every_network_is_pruned_to_its_budget(case, cost):
    run = measured(case)
    whole, least = s3d.count(run.graph), None
    total = vars(whole).get(cost, sum(run.graph.widths.values()))
    for share in (1.0, 0.9, 0.7, 0.5):
        try:
            keep = s3d.select_keep(random_scores(run.graph), run.graph, share * total, cost)
        except s3d.ConfigError as error:
            least = least or str(error)
            continue
        assert least is None
        copies = run.graph.per_channel(keep)
        check_equal_parts(run.graph, copies)
        cost_left = vars(s3d.count(run.graph, copies)).get(cost, sum(int(mask.sum()) for mask in keep.values()))
        assert cost_left <= share * total
        result = s3d.remove(run.model, run.graph, keep)
        assert all(width >= min(2, run.graph.widths[name]) for name, width in result.widths.items())
        if share == 1:
            assert result.widths == run.graph.widths
    assert least is None or "expected at least" in least


def test_in_one_group_the_most_important_neurons_stay():
    graph = s3d.trace(
        torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.Tanh(), torch.nn.Linear(9, 2)), torch.ones(1, 3)
    )
    scores = {"0": torch.tensor([3, 1, 4, 1.5, 9, 2.6, 5, 3.5, 8])}
    for width in range(2, 10):
        keep = s3d.select_keep(scores, graph, width * 5)["0"]
        assert keep.sum() == width
        assert scores["0"][keep].min() >= scores["0"][~keep].max() if width < 9 else keep.all()


def test_neurons_that_cost_more_go_first_if_they_are_as_important():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(50, 8), torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    graph = s3d.trace(model, torch.randn(1, 50))
    keep = s3d.select_keep({name: torch.ones(8) for name in graph.widths}, graph, 0.6 * s3d.count(graph).macs)
    assert keep["2"].all()
    assert 2 <= keep["0"].sum() < 8


def test_the_budget_is_missed_by_less_than_one_step():
    graph = measured(BY_NAME["residual-relu"]).graph
    total = s3d.count(graph).macs
    for share in (0.9, 0.8, 0.7):
        keep = s3d.select_keep(random_scores(graph), graph, share * total)
        copies = graph.per_channel(keep)
        for channel in (copies == 0).nonzero()[:, 0].tolist():
            more = copies.clone()
            more[channel] = 1
        assert s3d.count(graph, more).macs > share * total


def test_parts_go_together_and_the_least_important_of_each_go():
    graph = measured(next(case for case in WIDE if case.name == "grouped")).graph
    scores = {"reduce": torch.tensor([5.0, 1, 6, 7, 8, 2]), "grouped": torch.tensor([1.0, 3, 2, 6, 5, 4])}
    keep = s3d.select_keep(scores, graph, s3d.count(graph).macs - 150)  # about a block of each
    assert keep["stem"].all()
    for name, gone in (("reduce", [1, 5]), ("grouped", [0, 5])):
        assert (~keep[name]).nonzero()[:, 0].tolist() in ([], gone)
    assert not all(mask.all() for mask in keep.values())


def test_groups_without_importance_keep_all():
    graph = measured(MLP).graph
    keep = s3d.select_keep({"2": torch.rand(4)}, graph, 0.8 * s3d.count(graph).macs)
    assert keep["0"].all()
    assert not keep["2"].all()


def test_widths_stay_above_their_least():
    graph = measured(MLP).graph
    scores = random_scores(graph)
    for least in ({"0": 4}, {"2": 3}, {"0": 1, "2": 1}):
        with pytest.raises(s3d.ConfigError, match="budget: expected at least"):
            s3d.select_keep(scores, graph, 0, "neurons", min_widths=least)
        smallest = sum(least.get(name, 2) for name in graph.widths)
        keep = s3d.select_keep(scores, graph, smallest, "neurons", min_widths=least)
        assert {name: int(mask.sum()) for name, mask in keep.items()} == {n: least.get(n, 2) for n in graph.widths}


WRONG = [
    ({"x": torch.ones(3)}, {}, s3d.ModelError, "channel group 'x': expected one of"),
    (
        {"4": torch.ones(3)},
        {},
        s3d.ModelError,
        "importance: 4: expected a group that can be split, but",
    ),
    ({"0": torch.ones(3)}, {}, s3d.ModelError, r"importance: 0: expected shape \(5,\), got \(3,\)"),
    ({"0": torch.full((5,), torch.nan)}, {}, s3d.ModelError, "importance: 0: expected finite numbers, got others; has"),
    ({}, {"budget": 1}, s3d.ConfigError, "budget: expected at least 52 macs, what the smallest widths cost, got 1"),
    ({}, {"budget": "half"}, s3d.ConfigError, "budget: expected a number, got 'half'"),
    ({}, {"cost": "time"}, s3d.ConfigError, "cost: expected one of"),
    ({}, {"min_widths": {"0": 0}}, s3d.ConfigError, "min_widths: 0: expected a number >= 1, got 0"),
    ({}, {"min_widths": {"x": 2}}, s3d.ModelError, "channel group 'x': expected one of"),
]


@pytest.mark.parametrize(("scores", "settings", "error", "message"), WRONG)
def test_what_is_wrong_is_refused(scores, settings, error, message):
    with pytest.raises(error, match=message):
        s3d.select_keep(scores, measured(MLP).graph, **({"budget": 20} | settings))


def test_the_examples_of_the_docstring():
    (examples,) = doctest.DocTestFinder().find(s3d.select_keep, globs={})
    assert not doctest.DocTestRunner().run(examples).failed
