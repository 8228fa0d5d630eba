"""Which dimension of a reshape grows is found out, so that plans can be carried out and are no larger than need be."""

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.graph.grouping import build_graph
from nni_s3d.growth.graph.read import read_run
from nni_s3d.growth.rehearsal.growing_dims import growing_dims
from tests.wide import Net, sample


def laid_out(y, *shape):
    return y.reshape(y.shape[0], *shape, *y.shape[2:])


CASES = {  # forward, {reshape: dimension} that grow and are not the last, parts of each cut
    "rows of two": (lambda y: laid_out(y, y.shape[1] // 2, 2), {0: 1}, [2]),
    "rows of eight": (lambda y: laid_out(y, -1, 8), {0: 1}, [8]),
    "two rows": (lambda y: laid_out(y, 2, y.shape[1] // 2), {}, [2]),
    "eight rows": (lambda y: laid_out(y, 8, -1), {}, [8]),
    "by unflatten": (lambda y: y.unflatten(1, (-1, 4)), {0: 1}, [4]),
    "in the middle": (lambda y: laid_out(y, 2, y.shape[1] // 8, 4).flatten(1, 2), {0: 2, 1: 1}, [8, 4]),
}


def case(name: str) -> tuple[nn.Module, torch.Tensor]:
    lay = CASES[name][0]

    def forward(m, x):
        y = m.a(x)
        return m.b(lay(y).transpose(1, 2).reshape(y.shape))  # a shuffle

    torch.manual_seed(0)
    return Net(forward, a=nn.Conv2d(3, 16, 1), b=nn.Conv2d(16, 3, 1)).double().eval(), sample(2, 3, 4, 4)


@pytest.mark.parametrize("name", CASES)
def test_the_dimension_that_grows(name):
    model, x = case(name)
    notes = read_run(model, x).notes
    assert growing_dims(model, build_graph(notes, x), notes) == CASES[name][1]
    assert model.a.weight.shape == (16, 3, 1, 1)


@pytest.mark.parametrize("name", CASES)
def test_plans_are_carried_out_twice(name):
    model, x = case(name)
    expected = model(x)
    graph = s3d.trace(model, x)
    assert graph.widths == {"a": 16}
    assert [len(cut.parts) for cut in graph.equal_parts] == CASES[name][2]
    for step in range(2):
        policy = s3d.Knapsack(growth=0.8, cost="params")
        plan = s3d.select(s3d.new_neurons(model, graph, step), graph, policy)
        assert plan.neurons > 0
        result = s3d.split(model, graph, plan)
        model, graph = result.model, result.graph
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)
        assert s3d.trace(model, x).growing_dims == graph.growing_dims


class Attention(nn.Module):
    """The number of heads is whatever the channels give, as transformers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.out = 3, nn.Linear(6, 2)
        self.query, self.key, self.value = (nn.Linear(4, 6) for _ in range(3))

    def forward(self, x):
        parts = [layer(x).view(*x.shape[:2], -1, self.size) for layer in (self.query, self.key, self.value)]
        out = nn.functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts), scale=0.5)
        return self.out(out.transpose(1, 2).flatten(2))


def test_the_number_of_heads_stays():
    model, x = Attention().double(), sample(2, 5, 4)
    notes = read_run(model, x).notes
    assert growing_dims(model, build_graph(notes, x), notes) == {}
    graph = s3d.trace(model, x)
    assert graph.widths == {"query": 6, "value": 6}
    copies = s3d.with_equal_parts(graph, {"query": torch.tensor([2, 1, 1, 1, 1, 1])})
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=2.0), epsilon=0)
    assert result.model.size == 4
    torch.testing.assert_close(result.model(x), model(x), rtol=0, atol=1e-12)


def test_a_model_that_cannot_be_doubled_tells_nothing():
    model, x = case("rows of two")
    fixed = Net(lambda m, x: m.model(x)[:, :, :, :2] + 0 * m.model.a(x).reshape(2, 16, 4, 4)[:, :3, :, :2], model=model)
    notes = read_run(fixed, x).notes
    assert growing_dims(fixed, build_graph(notes, x), notes) == {}


def test_without_cuts_nothing_is_run(monkeypatch):
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), sample(2, 3)
    notes = read_run(model, x).notes
    monkeypatch.setattr("nni_s3d.growth.rehearsal.growing_dims.read_run", pytest.fail)
    assert growing_dims(model, build_graph(notes, x), notes) == {}
