import doctest

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.surgery.merge import find_copies
from tests import reference
from tests.cases import BY_NAME, CASES, measured, random_plan
from tests.growth.surgery.test_grown_values import MIDDLES
from tests.growth.surgery.test_optimizer_state import OPTIMIZERS, check_same_state, train
from tests.wide import WIDE, Net, random_case

RANDOM = tuple(random_case(seed) for seed in range(60))
every_case = pytest.mark.parametrize("case", [*CASES, *WIDE, *RANDOM], ids=lambda case: case.name)


def split(model, graph, seed, c=2.0):
    """Split neurons at random without moving them, along with what parts need."""
    copies = s3d.with_equal_parts(graph, reference.plan_of_random_copies(graph, (1, 2, 3), seed))
    return s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=c), epsilon=0)


@every_case
def test_copies_that_have_not_moved_are_merged_into_what_they_came_from(case):
    run = measured(case)
    grown = split(run.model, run.graph, seed=3)
    with reference.untouched(grown.model):
        merged = s3d.merge(grown.model, grown.graph)
    assert merged.widths == run.graph.widths
    before, after = run.model.state_dict(), merged.model.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-12, atol=1e-12)
    parents = {name: of_split[merged.index_map[name]] for name, of_split in grown.index_map.items()}
    assert all(torch.equal(numbers, torch.arange(len(numbers))) for numbers in parents.values())


@every_case
def test_a_network_without_copies_stays(case):
    run = measured(case)
    merged = s3d.merge(run.model, run.graph)
    assert merged.widths == run.graph.widths
    for tensor, other in zip(merged.model.state_dict().values(), run.model.state_dict().values(), strict=True):
        assert torch.equal(tensor, other)


@pytest.mark.parametrize("name", MIDDLES)
def test_rows_that_are_divided_by_their_size_stay_what_they_are(name):
    torch.manual_seed(0)
    middle = MIDDLES[name]()
    model = nn.Sequential(
        nn.Conv2d(2, middle.in_channels, 1), nn.SiLU(), middle, nn.SiLU(), nn.Conv2d(middle.out_channels, 2, 1)
    )
    model, x = model.double().eval(), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    graph = s3d.trace(model, x)
    merged = s3d.merge(*(vars(split(model, graph, seed=1))[field] for field in ("model", "graph")))
    assert merged.widths == graph.widths
    torch.testing.assert_close(merged.model(x), model(x), rtol=1e-12, atol=1e-12)


def test_copies_that_have_parted_stay():
    case = BY_NAME["mlp-tanh"]
    run = measured(case)
    grown = s3d.split(run.model, run.graph, random_plan(case, seed=2, choices=(2,)), epsilon=1e-9)
    assert s3d.merge(grown.model, grown.graph).widths == grown.widths


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp-tanh", "separable-silu", "residual-relu", "pool-flatten-leaky", "prelu"])
def test_the_optimizer_has_what_it_had_before_the_split(name, kind):
    case = BY_NAME[name]
    model, graph = case.model(), measured(case).graph
    optimizer = OPTIMIZERS[kind](model.parameters())
    train(case, model, optimizer, range(3))
    plan = s3d.plan_from_copies(graph, random_plan(case, seed=2).copies, c=3.0)
    grown = s3d.split(model, graph, plan, epsilon=0, optimizer=optimizer)
    carried = OPTIMIZERS[kind](grown.model.parameters())
    for parameter, buffers in zip(grown.model.parameters(), grown.optimizer_state["state"].values(), strict=False):
        carried.state[parameter] = buffers
    state = s3d.merge(grown.model, grown.graph, carried).optimizer_state
    check_same_state(state, optimizer.state_dict())


def test_equal_rows_that_read_other_blocks_are_no_copies():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 8, 1), nn.Tanh(), nn.Conv1d(8, 4, 1, groups=2), nn.Tanh(), nn.Conv1d(4, 2, 1)
    ).double()
    with torch.no_grad():
        model[2].weight[2:], model[2].bias[2:] = model[2].weight[:2], model[2].bias[:2]
        model[0].weight[4], model[0].bias[4] = model[0].weight[0], model[0].bias[0]  # which others read
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    merged = s3d.merge(model, s3d.trace(model, x))
    assert merged.widths == {"0": 8, "2": 4}
    torch.testing.assert_close(merged.model(x), model(x))


def test_halves_of_a_layer_that_go_different_ways_are_no_copies():
    torch.manual_seed(0)
    parts = {"a": nn.Linear(2, 6), "b": nn.Linear(6, 2)}

    def forward(m, x):
        first, second = m.a(x).chunk(2, dim=1)
        return m.b(torch.cat([first.tanh(), second.sin()], 1))

    model, x = Net(forward, **parts).double(), torch.randn(3, 2, dtype=torch.float64)
    with torch.no_grad():
        parts["a"].weight[3:], parts["a"].bias[3:] = parts["a"].weight[:3], parts["a"].bias[:3]
        for equal in (1, 4):  # and two copies in each half, of which one pair goes if the other does
            parts["a"].weight[equal], parts["a"].bias[equal] = parts["a"].weight[0], parts["a"].bias[0]
    graph = s3d.trace(model, x)
    merged = s3d.merge(model, graph)
    assert merged.widths == {"a": 4}
    assert merged.index_map["a"].tolist() == [0, 2, 3, 5]
    torch.testing.assert_close(merged.model(x), model(x))
    with torch.no_grad():
        parts["a"].bias[4] += 1
    assert s3d.merge(model, graph).widths == {"a": 6}  # else the halves would be unequal


def test_copies_with_other_followers_are_no_copies():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Tanh(), nn.Conv1d(3, 2, 1)).eval()
    graph = s3d.trace(model, torch.randn(2, 2, 4))
    with torch.no_grad():
        model[0].weight[:], model[0].bias[:] = model[0].weight[:1].clone(), 0.1
        model[1].running_var[1] = 2
    first = find_copies(graph, model.state_dict(keep_vars=True))
    assert first[graph["0"].channels].tolist() == [0, 1, 0]


def test_the_examples_of_the_docstring():
    (examples,) = doctest.DocTestFinder().find(s3d.merge, globs={"torch": torch, "nn": nn})
    assert not doctest.DocTestRunner().run(examples).failed
